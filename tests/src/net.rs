//! Machines that are none: three network namespaces, joined as a home, a road and a relay are.
//!
//! Owns namespaces, links and routes; refuses to know what is run in them. Whatever it makes dies with its value.
//!
//! ```text
//!   host ──── 10.77.1.0/24, the LAN ──── device
//!     └─ 10.77.2.0/24 ─ relay ─ 10.77.3.0/24 ─┘        the relay is 10.77.0.1, from either side
//! ```

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the host is on the LAN.
pub const HOST: &str = "10.77.1.1";
/// Where the device is on the LAN.
pub const DEVICE: &str = "10.77.1.2";
/// Where the relay is.
pub const RELAY: &str = "10.77.0.1";

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The daemon runs here.
    Host,
    /// The daemon's owner is here.
    Device,
    /// Reached by both, and belongs to neither.
    Relay,
}

/// See the module.
#[derive(Debug)]
pub struct Net {
    prefix: String,
}

impl Net {
    /// Makes the three and joins them.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let this = Self { prefix: format!("clawd{}n{number}", std::process::id()) };
        for machine in [Machine::Host, Machine::Device, Machine::Relay] {
            ip(&format!("netns add {}", this.name(machine)))?;
            this.ip(machine, "link set lo up")?;
        }
        this.join(("lan", Machine::Host, HOST), (Machine::Device, DEVICE))?;
        this.join(("wan", Machine::Host, "10.77.2.1"), (Machine::Relay, "10.77.2.2"))?;
        this.join(("road", Machine::Device, "10.77.3.1"), (Machine::Relay, "10.77.3.2"))?;
        this.ip(Machine::Relay, &format!("addr add {RELAY}/32 dev lo"))?;
        this.ip(Machine::Host, &format!("route add {RELAY}/32 via 10.77.2.2"))?;
        this.ip(Machine::Device, &format!("route add {RELAY}/32 via 10.77.3.2"))?;
        Ok(this)
    }

    fn name(&self, machine: Machine) -> String {
        format!("{}{machine:?}", self.prefix).to_lowercase()
    }

    fn ip(&self, machine: Machine, args: &str) -> Result<(), String> {
        ip(&format!("-n {} {args}", self.name(machine)))
    }

    fn join(
        &self,
        (link, one, at): (&str, Machine, &str),
        (other, there): (Machine, &str),
    ) -> Result<(), String> {
        let (first, second) = (self.name(one), self.name(other));
        ip(&format!("link add {link} netns {first} type veth peer name {link} netns {second}"))?;
        for (machine, address) in [(one, at), (other, there)] {
            self.ip(machine, &format!("addr add {address}/24 dev {link}"))?;
            self.ip(machine, &format!("link set {link} up"))?;
        }
        Ok(())
    }

    /// What has to stand before a program for it to run on this machine, in a shell that has the program as `$0`.
    #[must_use]
    pub fn before(&self, machine: Machine) -> String {
        format!("exec ip netns exec {} \"$0\" \"$@\"", self.name(machine))
    }

    /// The program, to be run on this machine.
    #[must_use]
    pub fn command(&self, machine: Machine, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(machine)]).arg(program);
        command
    }

    /// The LAN is cut: nobody is told, packets just do not arrive.
    pub fn cut_lan(&self) {
        // At the device's end only: the host's packets go out and into nothing.
        self.ip(Machine::Device, "link set lan down").expect("a link of ours");
    }

    /// The LAN is there again.
    pub fn mend_lan(&self) {
        self.ip(Machine::Device, "link set lan up").expect("a link of ours");
    }

    /// The host gets another address on the LAN, as after a night.
    pub fn move_host(&self, address: &str) {
        for change in [format!("addr del {HOST}/24"), format!("addr add {address}/24")] {
            self.ip(Machine::Host, &format!("{change} dev lan")).expect("a link of ours");
        }
    }

    /// Every byte that passes a link from now on, as its packets have it.
    #[must_use]
    pub fn capture(&self, machine: Machine, link: &str) -> Capture {
        const SCRIPT: &str = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.bind((sys.argv[1], 0))
out = open(sys.argv[2], 'wb', 0)
print('ready', flush=True)
while True:
    out.write(s.recv(262144))
";
        let file = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let mut command = self.command(machine, Path::new("python3"));
        command.args(["-c", SCRIPT, link]).arg(&file).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 runs");
        let mut ready = [0; 6];
        let mut said = child.stdout.take().expect("its output");
        said.read_exact(&mut ready).expect("it listens");
        Capture { child, file }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for machine in [Machine::Host, Machine::Device, Machine::Relay] {
            // What was never made cannot be taken away.
            let _ = ip(&format!("netns del {}", self.name(machine)));
        }
    }
}

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: tempfile::TempPath,
}

impl Capture {
    /// Where the bytes are.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file.to_path_buf()
    }

    /// Ends it: all bytes.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::fs::read(&self.file).expect("what was captured")
    }
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
