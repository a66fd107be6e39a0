//! Killed at any moment, the daemon keeps what it said was stored (security J2).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use clawd_protocol::{Change, DeviceId, Unix};
use clawd_runtime_mio::files::DataDir;
use clawd_runtime_mio::store::Store;

use super::{Home, device, put};

/// Not a test of its own: the daemon that `j2_…` kills. Each line it prints names an operation that was stored.
#[test]
#[ignore = "started by another test"]
fn stand_in_that_stores_until_it_is_killed() {
    let Some(data) = std::env::var_os("CLAWD_STAND_IN") else { return };
    let dir = DataDir::open(Path::new(&data)).unwrap();
    let (mut store, found) = Store::open(&dir).unwrap();
    let mut out = fs::OpenOptions::new().append(true).open("/dev/fd/1").unwrap();
    for number in found.seq + 1.. {
        let name = format!("{number:08}").into_bytes().try_into().unwrap();
        let changes = vec![
            Change::PutDevice(device(&name)),
            Change::Bury(DeviceId(name)),
            Change::Advance { seq: number, unix: Unix::default() },
        ];
        put(&mut store, changes);
        writeln!(out, "\nstored {number}").unwrap();
    }
}

#[test]
fn j2_what_was_said_to_be_stored_survives_kill_9() {
    let home = Home::new();
    let mut last = 0;
    for round in 0..12_u64 {
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::stand_in_that_stores_until_it_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env("CLAWD_STAND_IN", home.data())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let said = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("stored ").and_then(|number| number.parse::<u64>().ok())
        });
        for (count, number) in (0..).zip(said) {
            last = number;
            if count == 3 + round * 7 {
                daemon.kill().unwrap();
            }
        }
        daemon.wait().unwrap();
        let (_dir, _store, found) = home.start();
        assert!(found.seq >= last, "{} was said to be stored, {} is", last, found.seq);
        let rows = u64::try_from(found.devices.len()).unwrap();
        assert_eq!(rows, found.seq, "all of an operation or nothing");
        assert!(found.tombstones.len() >= found.devices.len(), "no device without its tombstone");
        last = found.seq;
    }
    assert!(last > 100);
}
