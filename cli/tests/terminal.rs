//! Security K1, proved with a terminal's own parser: whatever a peer writes, a terminal only prints it.

use clawd_protocol::text::{visible, visible_bytes, visible_line};
use proptest::prelude::*;
use vte::{Params, Parser, Perform};

/// A terminal that notes everything it would do beside printing.
#[derive(Default)]
struct Terminal {
    acts: Vec<String>,
}

impl Perform for Terminal {
    fn execute(&mut self, byte: u8) {
        if !matches!(byte, b'\n' | b'\t') {
            self.acts.push(format!("execute {byte:02x}"));
        }
    }

    fn hook(&mut self, _: &Params, _: &[u8], _: bool, action: char) {
        self.acts.push(format!("dcs {action}"));
    }

    fn put(&mut self, byte: u8) {
        self.acts.push(format!("put {byte:02x}"));
    }

    fn unhook(&mut self) {
        self.acts.push("unhook".to_owned());
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        self.acts.push(format!("osc {params:?}"));
    }

    fn csi_dispatch(&mut self, _: &Params, _: &[u8], _: bool, action: char) {
        self.acts.push(format!("csi {action}"));
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, byte: u8) {
        self.acts.push(format!("esc {byte:02x}"));
    }
}

fn acts(text: &str) -> Vec<String> {
    let mut terminal = Terminal::default();
    Parser::new().advance(&mut terminal, text.as_bytes());
    terminal.acts
}

/// What has been used against terminals and their readers.
const ATTACKS: [&str; 20] = [
    "\u{1b}[2J\u{1b}[H",                        // clear the screen
    "\u{1b}]0;owned\u{7}",                      // set the title
    "\u{1b}]52;c;cm0gLXJmIC8=\u{7}",            // write to the clipboard
    "\u{1b}]8;;http://evil.example\u{1b}\\ok",  // a link that says something else
    "\u{1b}]1337;File=name=eA==:eA==\u{7}",     // iTerm2: a file
    "\u{1b}P$qm\u{1b}\\",                       // DCS: answers back
    "\u{1b}[6n",                                // report: typed into the shell
    "\u{1b}[21t",                               // report the title
    "\u{1b}_Gf=24;AAAA\u{1b}\\",                // kitty: an image
    "\u{1b}c",                                  // reset
    "\u{1b}(0lqqk",                             // another character set
    "\u{1b}[?1049h",                            // another screen
    "\u{9b}31mred\u{9d}0;title\u{9c}",          // the same in C1
    "safe\rrm -rf /",                           // over the start of the line
    "rm -rf /\u{8}\u{8}\u{8}ls",                // backspaces
    "a\u{0b}b\u{0c}c\u{0e}d\u{0f}",             // vertical tab, form feed, shifts
    "\u{7}\u{0}\u{7f}",                         // bell, nul, delete
    "\u{1b}",                                   // half an escape
    "\u{1b}[38;5;16;48;5;231m \u{1b}[8mhidden", // hidden text
    "\u{90}q#0;2;0;0;0\u{9c}",                  // sixel
];

#[test]
fn k1_no_attack_acts_on_a_terminal() {
    for attack in ATTACKS {
        // The parser must see the attack as one, or this test proves nothing.
        let before: Vec<String> = acts(&format!("{attack}\u{18}"));
        assert!(!before.is_empty(), "{attack:?} does nothing to a terminal");
        for shown in [visible(attack), visible_line(attack), visible_bytes(attack.as_bytes())] {
            assert_eq!(acts(&shown), Vec::<String>::new(), "{attack:?} as {shown:?}");
            // Two texts that are shown one after the other must not act together either.
            assert_eq!(acts(&format!("{shown}{shown}")), Vec::<String>::new());
        }
    }
}

#[test]
fn k1_nothing_reorders_or_hides_text() {
    for hidden in
        ["\u{202e}", "\u{2066}", "\u{200b}", "\u{200f}", "\u{e0041}", "\u{feff}", "\u{2028}"]
    {
        let text = format!("a{hidden}b");
        assert!(!visible(&text).contains(hidden), "{text:?}");
    }
}

proptest! {
    #[test]
    fn k1_no_text_acts_on_a_terminal(text in any::<String>()) {
        prop_assert_eq!(acts(&visible(&text)), Vec::<String>::new());
    }

    #[test]
    fn k1_no_bytes_act_on_a_terminal(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        prop_assert_eq!(acts(&visible_bytes(&bytes)), Vec::<String>::new());
    }
}
