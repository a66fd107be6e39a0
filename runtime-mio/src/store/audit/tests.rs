use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use clawd_protocol::audit::Fault;
use clawd_protocol::{Change, OpId, Unix};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::files::DataDir;
use crate::store::Store;
use clawd_protocol::SessionId;

struct Home {
    temp: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let mode = Permissions::from_mode(0o700);
        Self { temp: tempfile::Builder::new().permissions(mode).tempdir().unwrap() }
    }

    fn open(&self) -> (DataDir, Store) {
        let dir = DataDir::open(self.temp.path()).unwrap();
        let (store, _) = Store::open(&dir).unwrap();
        (dir, store)
    }

    /// A life of a daemon that writes so many records, and then ends.
    fn live(&self, records: u64) {
        let (_dir, mut store) = self.open();
        for n in 0..records {
            write(&mut store, &n.to_string(), Sync::Disk).unwrap();
        }
    }

    fn reader(&self) -> AuditReader {
        DataDir::inspect(self.temp.path()).unwrap().audit()
    }

    fn faults(&self) -> Vec<(String, u64, Fault)> {
        let report = self.reader().verify().unwrap();
        report.findings.into_iter().map(|it| (it.file, it.line, it.fault)).collect()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.temp.path().join("audit.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn put_lines(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.temp.path().join("audit.log"), text).unwrap();
    }

    fn kinds(&self) -> Vec<AuditKind> {
        let kinds =
            [AuditKind::Paired, AuditKind::Continued, AuditKind::Recovered, AuditKind::Damaged];
        let kind = |line: &String| {
            let line = Line::read(line.as_bytes()).unwrap();
            kinds.into_iter().find(|kind| line.is(*kind)).unwrap()
        };
        self.lines().iter().map(kind).collect()
    }
}

fn record(note: &str) -> AuditRecord {
    let mut record = AuditRecord::new(Unix::from_millis(1), AuditKind::Paired, "owner");
    record.note = Some(note.to_owned());
    record
}

fn write(store: &mut Store, note: &str, sync: Sync) -> Result<(), StoreFault> {
    let changes = vec![Change::PutName(note.to_owned()), Change::Audit(record(note))];
    store.execute(vec![(OpId(1), changes, sync)]).remove(0).1
}

#[test]
fn h8_what_is_stored_is_in_the_log_and_the_log_is_private() {
    let home = Home::new();
    home.live(3);
    home.live(2);
    assert_eq!(home.kinds(), [AuditKind::Paired; 5]);
    let report = home.reader().verify().unwrap();
    assert_eq!((report.count, report.findings), (5, vec![]));
    let mode = fs::metadata(home.temp.path().join("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn h8_edited_removed_moved_and_missing_lines_are_named_with_their_file() {
    let home = Home::new();
    home.live(6);
    let good = home.lines();
    let file = || "audit.log".to_owned();
    let mut lines = good.clone();
    lines[2] = lines[2].replace("owner", "other");
    home.put_lines(&lines);
    assert_eq!(home.faults(), [(file(), 3, Fault::Edited)]);
    let mut lines = good.clone();
    lines.remove(2);
    home.put_lines(&lines);
    assert_eq!(home.faults(), [(file(), 3, Fault::Removed(3, 3))]);
    let mut lines = good.clone();
    lines.swap(2, 3);
    home.put_lines(&lines);
    assert_eq!(home.faults(), [(file(), 4, Fault::Moved(3))]);
    home.put_lines(&good[..4]);
    assert_eq!(home.faults(), [(file(), 4, Fault::CutOff(5, 6))]);
    home.put_lines(&[]);
    assert_eq!(home.faults(), [(String::new(), 0, Fault::CutOff(1, 6))]);
    home.put_lines(&good);
    assert_eq!(home.faults(), []);
}

#[test]
fn h8_damage_is_said_at_the_next_start_and_never_mended() {
    let home = Home::new();
    home.live(6);
    let good = home.lines();
    home.put_lines(&good[..4]);
    home.live(1);
    assert_eq!(home.kinds()[4..], [AuditKind::Damaged, AuditKind::Paired]);
    let gap = [("audit.log".to_owned(), 5, Fault::Removed(5, 6))];
    assert_eq!(home.faults(), gap);
    home.live(1);
    assert_eq!(home.lines().len(), 7, "it is said once");
    assert_eq!(home.faults(), gap, "and seen for ever");

    let home = Home::new();
    home.live(6);
    let mut lines = home.lines();
    lines[4] = lines[4].replace("owner", "other");
    home.put_lines(&lines);
    home.live(1);
    assert_eq!(home.kinds().iter().filter(|kind| **kind == AuditKind::Damaged).count(), 1);
    assert_eq!(home.faults(), [("audit.log".to_owned(), 5, Fault::Edited)]);
}

#[test]
fn h8_a_removed_log_is_missed() {
    let home = Home::new();
    home.live(6);
    fs::remove_file(home.temp.path().join("audit.log")).unwrap();
    home.live(1);
    assert_eq!(home.kinds(), [AuditKind::Damaged, AuditKind::Paired]);
    assert_eq!(home.faults(), [("audit.log".to_owned(), 1, Fault::Removed(1, 6))]);
}

#[test]
fn h8_half_a_line_is_cut_off_and_told() {
    let home = Home::new();
    home.live(3);
    let mut file =
        OpenOptions::new().append(true).open(home.temp.path().join("audit.log")).unwrap();
    file.write_all(b"{\"n\":4,\"prev\":\"00").unwrap();
    assert_eq!(home.faults(), []);
    home.live(1);
    assert_eq!(home.kinds()[3..], [AuditKind::Recovered, AuditKind::Paired]);
    let report = home.reader().verify().unwrap();
    assert_eq!((report.findings, report.recovered), (vec![], 1));
}

#[test]
fn h8_lines_lost_with_the_power_are_told_and_are_no_damage() {
    let home = Home::new();
    {
        let (_dir, mut store) = home.open();
        write(&mut store, "synced", Sync::Disk).unwrap();
        write(&mut store, "lost", Sync::Process).unwrap();
    }
    let lines = home.lines();
    home.put_lines(&lines[..1]);
    home.live(1);
    assert_eq!(home.kinds(), [AuditKind::Paired, AuditKind::Recovered, AuditKind::Paired]);
    assert_eq!(home.faults(), []);
}

#[test]
fn h8_a_record_without_its_transaction_is_taken_back() {
    let home = Home::new();
    let (_dir, mut store) = home.open();
    write(&mut store, "first", Sync::Disk).unwrap();
    let mut broken = vec![Change::Audit(record("never"))];
    // A message of a session that is not there: the transaction fails when it commits.
    broken.push(Change::PutMessage(clawd_protocol::record::MessageRecord {
        id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
        session: "00000000-0000-4000-8000-000000000002".parse().unwrap(),
        ordinal: 0,
        author: clawd_protocol::record::Author::User,
        content: String::new(),
        status: clawd_protocol::record::Progress::Done,
        created_at: Unix::default(),
        metadata: "{}".to_owned(),
        client_id: None,
    }));
    let good = vec![Change::Audit(record("second"))];
    let results =
        store.execute(vec![(OpId(1), broken, Sync::Disk), (OpId(2), good, Sync::Process)]);
    assert!(results[0].1.is_err() && results[1].1.is_ok(), "{results:?}");
    assert_eq!(home.lines().len(), 2);
    assert!(home.lines()[1].contains("second"));
    assert_eq!(home.faults(), []);
}

#[cfg(target_os = "linux")]
#[test]
fn h8_a_log_that_cannot_be_written_fails_the_operation_and_nothing_else() {
    let home = Home::new();
    let (_dir, mut store) = home.open();
    write(&mut store, "before", Sync::Disk).unwrap();
    // Full: whatever is written to this device fails so.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let real = store.writer.audit.file.replace(full);
    assert_eq!(write(&mut store, "lost", Sync::Disk), Err(StoreFault::Full));
    let name = "SELECT name FROM meta";
    let stored: String = store.writer.db.query_row(name, (), |row| row.get(0)).unwrap();
    assert_eq!(stored, "before", "nothing of it was kept");
    let other = vec![Change::PutName("other".to_owned())];
    assert_eq!(store.execute(vec![(OpId(2), other, Sync::Disk)])[0].1, Ok(()));
    store.writer.audit.file = real;
    write(&mut store, "after", Sync::Disk).unwrap();
    assert_eq!(home.lines().len(), 2);
    assert_eq!(home.faults(), []);
}

/// Not a test of its own: it lowers a limit of its whole process.
#[test]
#[ignore = "started by another test"]
fn stand_in_whose_files_may_not_grow() {
    let Some(data) = std::env::var_os("CLAWD_STAND_IN") else { return };
    let dir = DataDir::open(std::path::Path::new(&data)).unwrap();
    let (mut store, _) = Store::open(&dir).unwrap();
    let log = dir.path().join("audit.log");
    write(&mut store, "first", Sync::Disk).unwrap();
    let whole = fs::metadata(&log).unwrap().len();
    // Room for one more line and half of the next. The database, which is longer already, must not have to grow.
    let room = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(whole * 5 / 2), ..room }).unwrap();
    let records = || vec![Change::Audit(record("more"))];
    let mut audit = AuditLog::open(dir.private(), store.writer.audit.good.anchor).unwrap();
    let Change::Audit(more) = &records()[0] else { unreachable!() };
    audit.write(&[more], Sync::Disk).unwrap();
    let good = fs::metadata(&log).unwrap().len();
    assert!(audit.write(&[more], Sync::Disk).is_err(), "half a line does not fit");
    assert_eq!(fs::metadata(&log).unwrap().len(), good, "and is cut off again");
    setrlimit(Resource::Fsize, room).unwrap();
    audit.write(&[more], Sync::Disk).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let mut verifier = Verifier::new(None);
    text.lines().zip(1..).for_each(|(line, n)| verifier.line("", n, line.as_bytes()));
    assert_eq!(verifier.finish().findings, []);
    writeln!(io::stdout(), "the chain is whole").unwrap();
}

#[test]
fn h8_a_line_that_fits_only_half_is_cut_off_again() {
    let home = Home::new();
    let done = std::process::Command::new("/bin/sh")
        // The signal that comes with the limit ends whoever does not ignore it.
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::audit::tests::stand_in_whose_files_may_not_grow"])
        .args(["--ignored", "--nocapture"])
        .env("CLAWD_STAND_IN", home.temp.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("the chain is whole"), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn h8_full_files_are_turned_over_and_the_oldest_goes() {
    let home = Home::new();
    let (_dir, mut store) = home.open();
    store.writer.audit.file_bytes_max = 1500;
    for n in 0..80 {
        write(&mut store, &format!("record {n}"), Sync::Process).unwrap();
        if n == 2 {
            assert_eq!(home.faults(), []);
        }
    }
    let files = home.reader();
    let report = files.verify().unwrap();
    assert_eq!(report.findings, []);
    let kept = fs::read_dir(home.temp.path()).unwrap();
    let kept = kept.filter(|it| {
        it.as_ref().unwrap().file_name().to_str().is_some_and(|name| name.starts_with("audit.log"))
    });
    assert_eq!(kept.count(), FILES_MAX);
    assert!(report.count < report.chain.n, "the oldest are gone");
    // Half of the files read at once, the newest first, over the bounds of files.
    let page = files.page(None, None, 30, usize::MAX).unwrap();
    let numbers = |page: &[String]| -> Vec<u64> {
        page.iter().map(|line| Line::read(line.as_bytes()).unwrap().n).collect()
    };
    let expected: Vec<u64> = (0..30).map(|back| report.chain.n - back).collect();
    assert_eq!(numbers(&page), expected);
    let next = files.page(None, Some(expected[29]), 2, usize::MAX).unwrap();
    assert_eq!(numbers(&next), [expected[29] - 1, expected[29] - 2]);
    assert_eq!(files.page(None, None, 30, 1).unwrap().len(), 1, "at least one");
    // The beginning is missed too.
    fs::remove_file(home.temp.path().join("audit.log.7")).unwrap();
    assert!(matches!(home.faults()[..], [(_, 1, Fault::Removed(..))]), "{:?}", home.faults());
}

#[test]
fn h8_a_crash_while_files_are_turned_over_loses_nothing() {
    let home = Home::new();
    home.live(4);
    let log = |name: &str| home.temp.path().join(name);
    fs::rename(log("audit.log"), log("audit.log.1")).unwrap();
    home.live(1);
    assert_eq!(home.kinds(), [AuditKind::Continued, AuditKind::Paired]);
    let report = home.reader().verify().unwrap();
    assert_eq!((report.count, report.findings), (6, vec![]));
}

#[test]
fn pages_of_a_session_hold_only_what_is_about_it() {
    let home = Home::new();
    let (_dir, mut store) = home.open();
    let session: SessionId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    for n in 0..400 {
        let mut one = record(&format!("{n} {session} {}", "x".repeat(400)));
        one.session = (n % 100 == 7).then_some(session);
        let changes = vec![Change::Audit(one)];
        assert_eq!(store.execute(vec![(OpId(n), changes, Sync::Process)])[0].1, Ok(()));
    }
    let page = home.reader().page(Some(session), None, 3, usize::MAX).unwrap();
    let notes: Vec<bool> = [307, 207, 107]
        .iter()
        .zip(&page)
        .map(|(n, line)| line.contains(&format!("\"{n} ")))
        .collect();
    assert_eq!((page.len(), notes), (3, vec![true; 3]));
    let mut out = Vec::new();
    home.reader().export(&mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 400);
}
