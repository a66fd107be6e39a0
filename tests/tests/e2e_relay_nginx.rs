//! Two relays behind a real nginx, with the configuration that the documentation gives.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clawd_runtime_mio::tls::Identity;
use clawd_tests::daemon::{PATIENCE, Process, Site, skip, wait_until};
use clawd_tests::relay::{Host, Leg, Relay};
use rustix::process::Signal;

const DOCUMENTATION: &str = include_str!("../../runtime-mio/src/relay/nginx.md");
const NGINX: [&str; 3] = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
const DAEMONS: usize = 16;

/// The documented configuration with our ports, without the certificate, and with its files in `dir`.
fn configuration(dir: &Path, port: u16, nodes: [u16; 2]) -> String {
    let (_, rest) = DOCUMENTATION.split_once("```nginx\n").expect("a configuration");
    let (site, _) = rest.split_once("```").expect("its end");
    let is_kept = |line: &&str| !line.trim_start().starts_with("ssl_");
    let site: Vec<&str> = site.lines().filter(is_kept).collect();
    let site = site
        .join("\n")
        .replace("443 ssl", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:4400", &format!("127.0.0.1:{}", nodes[0]))
        .replace("127.0.0.1:4401", &format!("127.0.0.1:{}", nodes[1]));
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {}/nginx.pid;\nerror_log stderr crit;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{site}\n}}\n",
        dir.display()
    )
}

/// nginx in front of these relays, and its port; nothing if this machine has none.
fn nginx(site: &Site, nodes: [u16; 2]) -> Option<(Process, u16)> {
    let program = NGINX.iter().find(|path| Path::new(path).exists())?;
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("just bound").port();
    drop(free);
    let path = site.data().join("nginx.conf");
    fs::write(&path, configuration(&site.data(), port, nodes)).expect("a writable directory");
    let mut command = Command::new(program);
    command.arg("-c").arg(&path).arg("-p").arg(site.data());
    let mut process = Process::spawn(&mut command);
    wait_until("nginx listens", PATIENCE, || {
        assert!(!process.has_ended(), "nginx ended: {:?}", process.end());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some((process, port))
}

/// Sends all that comes back, until there is no more.
fn echo(mut leg: Leg) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = leg.read(&mut buffer) {
        if leg.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// One message there and back; whether it came back right.
fn goes_round(leg: &mut Leg, round: u8) -> bool {
    let bytes = vec![round; 20_000];
    let mut came = vec![0; bytes.len()];
    leg.send(&bytes).is_ok() && leg.read_exact(&mut came).is_ok() && came == bytes
}

#[test]
fn a_node_that_dies_takes_its_own_streams_and_nothing_else() {
    let site = Site::new();
    let nodes = [Relay::start(&["--trust-proxy"]), Relay::start(&["--trust-proxy"])];
    let Some((_nginx, port)) = nginx(&site, [nodes[0].port, nodes[1].port]) else {
        return skip("two relays behind nginx", "there is no nginx; install nginx-light");
    };
    // Each daemon, where it is, and a stream to it: all three through nginx, so that they meet only on one node.
    let mut there: [Vec<(Identity, Host, Leg)>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..DAEMONS {
        let identity = Identity::generate().expect("randomness");
        let before = nodes[0].metric("registrations_total");
        let mut host = Host::register(port, &identity).expect("registered");
        let node = usize::from(nodes[0].metric("registrations_total") == before);
        let (mut client, leg) = host.meet();
        thread::spawn(move || echo(leg));
        assert!(goes_round(&mut client, 1));
        there[node].push((identity, host, client));
    }
    let [of_first, of_second] = &mut there;
    assert!(!of_first.is_empty() && !of_second.is_empty(), "all are on one node");
    assert_eq!(nodes[1].metric("streams"), of_second.len() as u64);

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let lasting: Vec<_> = of_second
            .iter_mut()
            .map(|(_, _, client)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut rounds = 0_u8;
                    while !is_over.load(Ordering::Relaxed) {
                        rounds = rounds.wrapping_add(1);
                        assert!(
                            goes_round(client, rounds),
                            "a stream of the other node was touched"
                        );
                    }
                })
            })
            .collect();
        nodes[0].process.signal(Signal::KILL);
        for (identity, host, client) in of_first.iter_mut() {
            assert_eq!(host.control.text(), None, "its node is gone");
            assert!(!goes_round(client, 2));
            wait_until("it registers elsewhere", PATIENCE, || {
                Host::register(port, identity).is_ok_and(|new| {
                    *host = new;
                    true
                })
            });
            let (mut client, leg) = host.meet();
            thread::spawn(move || echo(leg));
            assert!(goes_round(&mut client, 3));
        }
        is_over.store(true, Ordering::Relaxed);
        lasting.into_iter().for_each(|thread| thread.join().expect("untouched"));
    });
    assert_eq!(nodes[1].metric("daemons"), DAEMONS as u64);
}
