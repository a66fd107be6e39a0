//! The methods and who may call them.
//!
//! Owns the one table of security B8: each method's name and the least role that may call it. A method that is not in
//! it does not compile. Refuses to know what a method does.

use crate::contract::record::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, also before `daemon.auth`.
    Anybody,
    /// Callers with this role or a greater one.
    From(Role),
    /// Devices only, about themselves.
    Device,
    /// Callers with this role; and every device where the call is about itself.
    SelfOr(Role),
}

macro_rules! methods {
    ($($variant:ident $name:literal $access:expr;)+) => {
        /// A method of the daemon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Method { $($variant),+ }

        impl Method {
            /// All methods, for tests of the whole table.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            #[cfg(test)]
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            pub(crate) const fn access(self) -> Access {
                match self { $(Self::$variant => $access),+ }
            }
        }
    };
}

use Access::{Anybody, Device, From, SelfOr};
use Role::{Admin, Approve, Full, Owner, Read};

methods! {
    Ping            "daemon.ping"           Anybody;
    Auth            "daemon.auth"           Anybody;
    Pair            "device.pair"           Anybody;
    PairStart       "device.pairStart"      Anybody;
    PairFinish      "device.pairFinish"     Anybody;
    Status          "daemon.status"         From(Read);
    Providers       "daemon.providers"      From(Read);
    CheckProvider   "daemon.checkProvider"  From(Read);
    Addresses       "daemon.addresses"      From(Read);
    SetName         "daemon.setName"        From(Admin);
    PairPin         "daemon.pairPin"        From(Admin);
    PairCancel      "daemon.pairCancel"     From(Admin);
    PairConfirm     "daemon.pairConfirm"    From(Admin);
    RotateToken     "daemon.rotateToken"    From(Owner);
    SetRelay        "daemon.setRelay"       From(Owner);
    ResetIdentity   "daemon.resetIdentity"  From(Owner);
    Shutdown        "daemon.shutdown"       From(Owner);
    DeviceList      "device.list"           From(Read);
    DeviceRevoke    "device.revoke"         SelfOr(Admin);
    DeviceRename    "device.rename"         SelfOr(Admin);
    DeviceRotate    "device.rotate"         Device;
    DeviceSetRole   "device.setRole"        From(Owner);
    SessionCreate   "session.create"        From(Full);
    SessionList     "session.list"          From(Read);
    SessionGet      "session.get"           From(Read);
    SessionRename   "session.rename"        From(Full);
    SessionDelete   "session.delete"        From(Full);
    SendMessage     "session.sendMessage"   From(Full);
    Messages        "session.getMessages"   From(Read);
    SessionPause    "session.pause"         From(Full);
    SessionResume   "session.resume"        From(Full);
    SessionCancel   "session.cancel"        From(Full);
    SetModel        "session.setModel"      From(Full);
    ToolCalls       "session.toolCalls"     From(Read);
    ToolCallAudit   "session.toolCallAudit" From(Read);
    AuditList       "audit.list"            From(Admin);
    ToolApprove     "tool.approve"          From(Approve);
    ToolReject      "tool.reject"           From(Approve);
    Approvals       "approval.list"         From(Read);
    Respond         "approval.respond"      From(Approve);
    PolicyTest      "policy.test"           From(Read);
    Subscribe       "events.subscribe"      From(Read);
}

impl Method {
    /// It starts processes, mints secrets, makes rows or reads a whole log: counted against the caller's burst (security C6).
    pub(crate) const fn is_costly(self) -> bool {
        matches!(
            self,
            Self::SessionCreate
                | Self::SendMessage
                | Self::CheckProvider
                | Self::PairPin
                | Self::RotateToken
                | Self::SetRelay
                | Self::ResetIdentity
                | Self::DeviceRotate
                | Self::ToolCallAudit
                | Self::AuditList
                | Self::PolicyTest
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_methods_are_one_to_one() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.name()), Some(*method));
        }
        assert_eq!(Method::from_name("daemon.Ping"), None);
    }

    #[test]
    fn b8_only_the_handshake_is_open_to_strangers() {
        let open: Vec<_> = Method::ALL
            .iter()
            .filter(|method| method.access() == Anybody)
            .map(|method| method.name())
            .collect();
        let pairing = ["device.pair", "device.pairStart", "device.pairFinish"];
        assert_eq!(open, [&["daemon.ping", "daemon.auth"][..], &pairing].concat());
    }
}
