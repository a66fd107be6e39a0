//! Where this machine can be reached.
//!
//! Owns the look at the network interfaces; refuses to know who asks. Only what our listeners cover counts, and only what
//! another machine could connect to.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Addresses of interfaces that are up, as far as one of these is bound to them.
///
/// # Errors
/// The system does not say, which is not the same as none: it may be out of file descriptors.
pub fn reachable(bound: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
    let is_bound = |address: &IpAddr| {
        bound
            .iter()
            .any(|at| at == address || at.is_unspecified() && at.is_ipv4() == address.is_ipv4())
    };
    let up = getifaddrs()?.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let found: BTreeSet<IpAddr> = up
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(is_bound)
        .filter(is_reachable)
        .collect();
    Ok(found.into_iter().collect())
}

/// Neither loopback nor link-local: the latter needs the name of an interface, which is another one over there.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn nobody_can_reach_loopback() {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        assert!(reachable(&loopback).unwrap().is_empty());
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        assert!(reachable(&any).unwrap().iter().all(|address| !address.is_loopback()));
    }
}
