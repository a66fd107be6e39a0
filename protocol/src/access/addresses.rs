//! Where devices in the same network find us.
//!
//! Owns `daemon.addresses`, the question to the world that it and a pairing window need, and the form of the answer;
//! refuses to know how a machine's addresses are found and whether somebody can reach them.
//!
//! A machine's addresses change with each network it is in. A device that came through the relay asks here for the new ones,
//! and need not be paired again to find the shorter way.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::Access;
use super::ctx::Ctx;
use super::pairing_window::Wish;
use super::peers::Call;
use crate::contract::effect::Question;
use crate::contract::error::StoreFault;
use crate::contract::id::AskId;
use crate::contract::input::Answer;
use crate::engine::Timer;
use crate::wire::rpc::RpcError;

/// What waits for our addresses.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// A window that shall lead to them.
    Window(Wish),
    /// `daemon.addresses`.
    Call(Call),
}

/// The result of `daemon.addresses`.
#[derive(Serialize)]
struct Places<'a> {
    urls: &'a [String],
}

impl Access {
    pub(crate) fn on_addresses(&mut self, cx: &mut Ctx<'_>, call: Call) {
        self.want_addresses(cx, Wanted::Call(call));
    }

    /// However many want them, the world is asked once at a time: calls are many, and those who answer questions few.
    pub(super) fn want_addresses(&mut self, cx: &mut Ctx<'_>, wanted: Wanted) {
        if let Some((_, waiting)) = &mut self.wanted {
            return waiting.push(wanted);
        }
        let ask = cx.ask(Question::Addresses);
        let until = cx.engine.now.mono + cx.engine.config.limits.addresses_timeout;
        cx.engine.timers.arm(Timer::Ask(ask), until);
        self.wanted = Some((ask, vec![wanted]));
    }

    /// Takes the answer to a question of ours; another one is given back.
    pub(crate) fn on_answered(
        &mut self,
        cx: &mut Ctx<'_>,
        ask: AskId,
        answer: Answer,
    ) -> Option<Answer> {
        let Some((_, waiting)) = self.wanted.take_if(|(asked, _)| *asked == ask) else {
            return Some(answer);
        };
        cx.engine.timers.disarm(Timer::Ask(ask));
        self.hand_out(cx, waiting, &answer.addresses());
        None
    }

    pub(crate) fn on_ask_late(&mut self, cx: &mut Ctx<'_>, ask: AskId) -> bool {
        let Some((_, waiting)) = self.wanted.take_if(|(asked, _)| *asked == ask) else {
            return false;
        };
        let why = String::from("no answer in time");
        self.hand_out(cx, waiting, &Err(StoreFault::Failed(why)));
        true
    }

    fn hand_out(
        &mut self,
        cx: &mut Ctx<'_>,
        waiting: Vec<Wanted>,
        found: &Result<Vec<IpAddr>, StoreFault>,
    ) {
        let urls = found.as_ref().map(|found| urls(found, cx.engine.port));
        for wanted in waiting {
            match (wanted, &urls) {
                (Wanted::Window(wish), Ok(urls)) => self.on_place(cx, wish, urls),
                // A window opens in any case, since a PIN is good on this machine too.
                (Wanted::Window(wish), Err(_)) => self.on_place(cx, wish, &[]),
                (Wanted::Call(call), urls) => {
                    let Some(call) = cx.still_welcome(call) else { continue };
                    match urls {
                        Ok(urls) => cx.answer(call, &Places { urls }),
                        Err(_) => cx.refuse(call, &unknown()),
                    }
                }
            }
        }
    }
}

/// None is an answer too: a device may forget what it knew. So not to know must not look like it.
fn unknown() -> RpcError {
    RpcError::new(-32603, "internal", "this machine's addresses could not be read")
        .hint("try again; `clawd logs` there says more")
}

/// The older kind of address first: it is short, and most phones have one. One that is good on one link only says nothing
/// without the link's name, which differs from machine to machine.
fn urls(addresses: &[IpAddr], port: u16) -> Vec<String> {
    let is_of_link = |address: &IpAddr| match address {
        IpAddr::V6(address) => address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    let mut good: Vec<&IpAddr> =
        addresses.iter().filter(|it| !is_of_link(it) && !it.is_loopback()).collect();
    good.sort_by_key(|it| it.is_ipv6());
    good.into_iter().map(|address| format!("wss://{}", SocketAddr::new(*address, port))).collect()
}
