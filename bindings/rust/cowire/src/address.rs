// SPDX-License-Identifier: Apache-2.0
//! Addresses of the standard library as the C interface has them, and back.
use cowire_sys as sys;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// As many are turned at a time on the stack, without an allocation.
pub(crate) const CHUNK: usize = 64;

pub(crate) const NOWHERE: sys::cowire_address = sys::cowire_address {
    v6: sys::sockaddr_in6 {
        sin6_family: sys::AF_UNSPEC,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: [0; 16],
        sin6_scope_id: 0,
    },
};

pub(crate) fn to_c(address: SocketAddr) -> sys::cowire_address {
    let mut out = NOWHERE;
    match address {
        SocketAddr::V4(v4) => {
            out.v4 = sys::sockaddr_in {
                sin_family: sys::AF_INET,
                sin_port: v4.port().to_be(),
                sin_addr: u32::from(*v4.ip()).to_be(),
                sin_zero: [0; 8],
            };
        }
        SocketAddr::V6(v6) => {
            out.v6 = sys::sockaddr_in6 {
                sin6_family: sys::AF_INET6,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo().to_be(),
                sin6_addr: v6.ip().octets(),
                sin6_scope_id: v6.scope_id(),
            };
        }
    }
    out
}

/// A source address; its port is the sender's.
pub(crate) fn source_to_c(address: Option<impl Into<IpAddr>>) -> sys::cowire_address {
    address.map_or(NOWHERE, |ip| to_c(SocketAddr::new(ip.into(), 0)))
}

pub(crate) fn from_c(address: &sys::cowire_address) -> Option<SocketAddr> {
    // SAFETY: the family is in all parts at the same place, and says which part it is.
    unsafe {
        match address.family {
            sys::AF_INET => {
                let ip = Ipv4Addr::from(u32::from_be(address.v4.sin_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(address.v4.sin_port)).into())
            }
            sys::AF_INET6 => {
                let v6 = &address.v6;
                let (port, flow) = (u16::from_be(v6.sin6_port), u32::from_be(v6.sin6_flowinfo));
                Some(SocketAddrV6::new(v6.sin6_addr.into(), port, flow, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_both_ways() {
        for text in ["192.0.2.1:9000", "[2001:db8::1]:53", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Some(address), from_c(&to_c(address)));
        }
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0x12345, 3).into();
        assert_eq!(Some(scoped), from_c(&to_c(scoped)));
        assert_eq!(None, from_c(&NOWHERE));
        // SAFETY: it was just made as this part.
        let bytes = unsafe { to_c("1.2.3.4:258".parse().unwrap()).v4 };
        assert_eq!([1, 2, 3, 4], bytes.sin_addr.to_ne_bytes());
        assert_eq!([1, 2], bytes.sin_port.to_ne_bytes());
    }
}
