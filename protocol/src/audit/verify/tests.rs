use super::*;
use crate::contract::record::AuditRecord;
use crate::contract::time::Unix;
use proptest::prelude::*;

fn record(kind: AuditKind, note: &str) -> AuditRecord {
    let mut record = AuditRecord::new(Unix::from_millis(7), kind, "owner");
    record.note = Some(note.to_string());
    record
}

/// A log of that many lines, and its end.
fn log(count: u64) -> (Vec<String>, Chain) {
    let mut chain = Chain::default();
    let line = |n: u64| chain.append(&record(AuditKind::Decided, &n.to_string()));
    let lines: Vec<String> =
        (1..=count).map(line).map(|line| line.trim_end().to_string()).collect();
    (lines, chain)
}

fn verify(lines: &[String], remembered: Option<Chain>) -> Report {
    let mut verifier = Verifier::new(remembered);
    for (line, number) in lines.iter().zip(1..) {
        verifier.line("audit.log", number, line.as_bytes());
    }
    verifier.finish()
}

fn faults(lines: &[String], remembered: Chain) -> Vec<(u64, Fault)> {
    let report = verify(lines, Some(remembered));
    report.findings.into_iter().map(|it| (it.line, it.fault)).collect()
}

#[test]
fn h8_a_whole_log_is_proved() {
    let (lines, end) = log(9);
    let report = verify(&lines, Some(end));
    assert_eq!((report.count, report.chain, report.findings), (9, end, Vec::new()));
    assert_eq!(verify(&[], None).findings, []);
}

#[test]
fn h8_an_edited_line_is_named() {
    let (good, end) = log(9);
    for (at, number) in (0..9).zip(1..) {
        let mut lines = good.clone();
        lines[at] = lines[at].replace("owner", "other");
        assert_eq!(faults(&lines, end), [(number, Fault::Edited)], "at {at}");
        lines[at] = "garbage".to_string();
        let found = faults(&lines, end);
        assert!(found.contains(&(number, Fault::Edited)), "at {at}: {found:?}");
    }
}

#[test]
fn h8_an_exchanged_line_with_a_hash_of_its_own_is_named() {
    let (good, end) = log(9);
    for (at, number) in (0..9_usize).zip(1..) {
        let mut lines = good.clone();
        let before = at.checked_sub(1).map_or_else(Chain::default, |before| {
            let line = Line::read(good[before].as_bytes()).unwrap();
            Chain { n: line.n, head: line.hash }
        });
        lines[at] = before.clone().append(&record(AuditKind::Decided, "x")).trim_end().to_string();
        assert_eq!(faults(&lines, end), [(number, Fault::Edited)], "at {at}");
    }
}

#[test]
fn h8_removed_lines_are_named() {
    let (good, end) = log(9);
    let mut lines = good.clone();
    lines.remove(4);
    assert_eq!(faults(&lines, end), [(5, Fault::Removed(5, 5))]);
    lines.drain(1..3);
    assert_eq!(faults(&lines, end), [(2, Fault::Removed(2, 3)), (3, Fault::Removed(5, 5))]);
    assert_eq!(faults(&good[2..], end), [(1, Fault::Removed(1, 2))]);
}

#[test]
fn h8_a_missing_end_is_named() {
    let (good, end) = log(9);
    assert_eq!(faults(&good[..7], end), [(7, Fault::CutOff(8, 9))]);
    assert_eq!(faults(&[], end), [(0, Fault::CutOff(1, 9))]);
    // Without what the daemon remembers nobody could tell.
    assert_eq!(verify(&good[..7], None).findings, []);
}

#[test]
fn h8_moved_and_repeated_lines_are_named() {
    let (good, end) = log(9);
    let mut lines = good.clone();
    lines.swap(3, 4);
    assert_eq!(faults(&lines, end), [(5, Fault::Moved(4))]);
    let mut lines = good.clone();
    let moved = lines.remove(1);
    lines.push(moved);
    assert_eq!(faults(&lines, end), [(9, Fault::Moved(2))]);
    let mut lines = good.clone();
    lines.insert(5, good[2].clone());
    assert_eq!(faults(&lines, end), [(6, Fault::Repeated(3))]);
}

#[test]
fn h8_a_log_that_the_daemon_has_not_written_is_noticed() {
    let (_, end) = log(9);
    let mut chain = Chain::default();
    let line = |_| chain.append(&record(AuditKind::Decided, "other")).trim_end().to_string();
    let lines: Vec<String> = (1..=9).map(line).collect();
    assert_eq!(faults(&lines, end), [(9, Fault::Edited)]);
}

#[test]
fn h8_a_rotated_log_may_begin_where_it_says_and_nowhere_else() {
    let mut chain = Chain { n: 100, head: Link::from_bytes([7; 32]) };
    let mut lines = Vec::new();
    for n in 101..=105 {
        lines.push(chain.append(&record(AuditKind::Decided, "x")).trim_end().to_string());
        assert_eq!(chain.n, n);
    }
    let mut continued = record(AuditKind::Continued, "");
    continued.first = Some(101);
    lines.push(chain.append(&continued).trim_end().to_string());
    assert_eq!(faults(&lines, chain), []);
    assert_eq!(faults(&lines[1..], chain), [(1, Fault::Removed(101, 101))]);
}

#[test]
fn findings_are_said_with_their_place() {
    let finding = |fault| Finding { file: "audit.log.1".to_string(), line: 17, fault }.to_string();
    assert_eq!(finding(Fault::Edited), "audit.log.1:17: this line was edited");
    assert!(finding(Fault::Removed(3, 3)).ends_with("record 3 was removed before this line"));
    assert!(finding(Fault::CutOff(18, 20)).contains("records 18 to 20"));
}

proptest! {
    /// Whatever is done to the lines between the first and the last: it does not go unnoticed.
    #[test]
    fn h8_no_change_goes_unnoticed(
        changes in proptest::collection::vec((0_usize..12, 0_usize..12, 0_u8..5), 1..4),
    ) {
        let (good, end) = log(12);
        let mut lines = good.clone();
        for (at, to, what) in changes {
            if at >= lines.len() || to >= lines.len() {
                continue;
            }
            match what {
                0 => drop(lines.remove(at)),
                1 => lines.swap(at, to),
                2 => lines[at] = lines[at].replace("owner", "other"),
                3 => lines.truncate(at),
                _ => lines.insert(to, lines[at].clone()),
            }
        }
        let report = verify(&lines, Some(end));
        prop_assert_eq!(lines == good, report.findings.is_empty(), "{:?}", report.findings);
    }

    #[test]
    fn any_bytes_are_judged_without_harm(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..9),
    ) {
        let mut verifier = Verifier::new(None);
        for line in &lines {
            verifier.line("x", 1, line);
        }
        prop_assert_eq!(verifier.finish().findings.is_empty(), lines.is_empty());
    }
}
