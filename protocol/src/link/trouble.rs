//! What can go wrong with a relay, in our own words.
//!
//! Owns the words, for programs and for people; refuses to know what is done about it. No word of the relay's is among
//! them.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use crate::contract::error::DialFault;
use crate::relay::control::Refusal;

/// Why there is no registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The leg could not be made.
    Dial(DialFault),
    /// The leg is gone.
    Lost,
    /// There was no `challenge`, or no `registered`, in time.
    Late,
    /// There was no `pong` in time.
    Silent,
    /// It said what it should not, or not then.
    Garbled,
    /// It does not want us; why, if we know the word.
    Refused(Option<Refusal>),
    /// Our own key did not sign.
    NotSigned,
}

/// Waiting is all there is to do.
const BY_ITSELF: &str = "nothing is to be done: it is tried again by itself";

impl Trouble {
    /// For programs.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Dial(fault) => match fault {
                DialFault::Unresolved => "unresolved",
                DialFault::Unreachable(_) => "unreachable",
                DialFault::TimedOut => "timed_out",
                DialFault::TooOld => "tls_too_old",
                DialFault::NotYetValid => "certificate_not_yet_valid",
                DialFault::Expired => "certificate_expired",
                DialFault::Tls(_) => "tls",
                DialFault::WrongPin => "wrong_pin",
                DialFault::Redirected => "redirected",
                DialFault::Rejected(_) => "rejected",
                DialFault::NotWebSocket => "not_a_relay",
                DialFault::Busy => "no_room",
            },
            Self::Lost => "lost",
            Self::Late => "late",
            Self::Silent => "silent",
            Self::Garbled => "garbled",
            Self::Refused(Some(Refusal::Busy)) => "busy",
            Self::Refused(Some(Refusal::Replaced)) => "replaced",
            Self::Refused(Some(Refusal::GoingAway)) => "going_away",
            Self::Refused(Some(Refusal::Refused | Refusal::Offline) | None) => "refused",
            Self::NotSigned => "not_signed",
        }
    }

    /// What happened, for people.
    pub(super) fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Dial(fault) => match fault {
                DialFault::Unresolved => "the relay's name has no address",
                DialFault::Unreachable(_) => "nobody answers at the relay's address",
                DialFault::TimedOut => "the relay did not answer in time",
                DialFault::TooOld => {
                    "the relay does not speak TLS 1.3, and nothing older is spoken here"
                }
                DialFault::NotYetValid => {
                    "by this machine's clock, the relay's certificate is not valid yet"
                }
                DialFault::Expired => {
                    "by this machine's clock, the relay's certificate has expired"
                }
                DialFault::Tls(_) => {
                    "no secure connection: the relay's certificate is not trusted here, or it speaks no TLS"
                }
                DialFault::WrongPin => "the relay's key is not the pinned one",
                DialFault::Redirected => "the relay's address leads elsewhere, and is not followed",
                DialFault::Rejected(status) => {
                    return Cow::Owned(format!("the relay's address answers with HTTP {status}"));
                }
                DialFault::NotWebSocket => "what answers at the relay's address is no relay",
                DialFault::Busy => "there was no room here for one more connection",
            },
            Self::Lost => "the connection to the relay was lost",
            Self::Late => "the relay did not take our registration in time",
            Self::Silent => "the relay no longer answers",
            Self::Garbled => "the relay said something that no relay says",
            Self::Refused(Some(Refusal::Busy)) => "the relay has too many daemons",
            Self::Refused(Some(Refusal::Replaced)) => {
                "another daemon with this identity has taken our place at the relay"
            }
            Self::Refused(Some(Refusal::GoingAway)) => "the relay is being stopped",
            Self::Refused(Some(Refusal::Refused)) => "the relay does not take this daemon",
            Self::Refused(Some(Refusal::Offline) | None) => {
                "the relay does not take this daemon, for a reason unknown here"
            }
            Self::NotSigned => "this daemon's key could not sign the registration",
        })
    }

    /// What to do, for people.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::Dial(fault) => match fault {
                DialFault::Unresolved => {
                    "check the relay's address, and that this machine is online"
                }
                DialFault::Unreachable(_) => {
                    "check the relay's address and port, and that the relay runs"
                }
                DialFault::TimedOut => {
                    "check that this machine is online, and that no firewall is in between"
                }
                DialFault::TooOld => {
                    "TLS 1.3 has to be enabled at the relay, or at the proxy in front of it"
                }
                DialFault::NotYetValid => {
                    "check this machine's clock, it seems to be slow; it is tried again by itself"
                }
                DialFault::Expired => {
                    "check this machine's clock; if it is right, the relay needs a new certificate"
                }
                DialFault::Tls(_) => {
                    "`clawd logs` says what TLS said; if an authority of your own has signed the certificate, add \
                     it to this system's, or stop clawd and start it with SSL_CERT_FILE=its file"
                }
                DialFault::WrongPin => {
                    "somebody may be in between; if the relay has a new key, set its pin anew"
                }
                DialFault::Redirected => "set the address that the relay really has",
                DialFault::Rejected(401 | 403) => "ask the relay's owner who may use it",
                DialFault::Rejected(404) | DialFault::NotWebSocket => {
                    "check the relay's address: a path may be missing, or be too much"
                }
                DialFault::Rejected(429 | 502..=504) => {
                    "the relay has too much to do, or does not run behind its proxy; it is tried again by itself"
                }
                DialFault::Rejected(_) => "check that a relay runs at this address",
                DialFault::Busy => BY_ITSELF,
            },
            Self::Refused(Some(Refusal::Replaced)) => {
                "stop the other one; if its data was copied from here, give one of the two a new identity"
            }
            Self::Refused(Some(Refusal::Refused | Refusal::Offline) | None) => {
                "the relay's owner may want to see an access token, or have to allow this daemon's id"
            }
            Self::Late | Self::Garbled => {
                "check that it is a relay of clawd, and that both are of a like version"
            }
            Self::Lost | Self::Silent | Self::Refused(Some(Refusal::Busy | Refusal::GoingAway)) => {
                BY_ITSELF
            }
            Self::NotSigned => "see the daemon's log",
        }
    }

    /// What the runtime itself says of it, for the owner's log only.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Dial(DialFault::Unreachable(why) | DialFault::Tls(why)) => Some(why.clone()),
            Self::Dial(
                DialFault::Unresolved
                | DialFault::TimedOut
                | DialFault::TooOld
                | DialFault::NotYetValid
                | DialFault::Expired
                | DialFault::WrongPin
                | DialFault::Redirected
                | DialFault::Rejected(_)
                | DialFault::NotWebSocket
                | DialFault::Busy,
            )
            | Self::Lost
            | Self::Late
            | Self::Silent
            | Self::Garbled
            | Self::Refused(_)
            | Self::NotSigned => None,
        }
    }
}
