// SPDX-License-Identifier: Apache-2.0
//! Agave's `agave_xdp` as its callers see it: block propagation, repair, gossip and QUIC compile
//! with `use cowire::compat::agave::...` in place of `agave_xdp`, `solana_net_utils` (for
//! [`PinnedXdpSender`]) and `crossbeam_channel` (for [`TrySendError`]).
//!
//! What differs:
//! - The payload is any `P: AsRef<[u8]>`: `Bytes` as there, or what the caller has. It is copied
//!   once, into the frame, and dropped before the call returns.
//! - The sender's index chooses nothing: cowire spreads flows over its threads itself, and keeps
//!   the order of each flow.
//! - A fan-out that found room for some of its destinations comes back as [`TrySendError::Full`]
//!   with the rest of them, so that a retry sends nothing twice.
//! - What the kernel would send otherwise than through AF_XDP goes through the kernel; nothing is
//!   dropped because a route or a neighbour is missing.
//! - A source address of its own needs a socket of the kernel's, which is made when the first packet
//!   has it, and that waits: [`XdpSender::prepare`] does it before. Where the program receives on
//!   that port, [`XdpSender::adopt`] its socket.
//! - A packet that may overflow the MTU is a path MTU probe, which the kernel sends if it does. On an
//!   adopted socket it is what the socket's own IP_MTU_DISCOVER makes of it.
pub use ecn_codepoint::EcnCodepoint;
use std::{
    fmt,
    net::{SocketAddrV4, UdpSocket},
    time::Duration,
};
pub use transmitter::{BytesTxPacket, XdpAddrs, XdpSender};

/// `agave_xdp::ecn_codepoint`
pub mod ecn_codepoint {
    /// RFC 3168, section 5. No mark is `None` of an `Option`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(u8)]
    pub enum EcnCodepoint {
        /// ECT(0)
        Ect0 = 0b10,
        /// ECT(1)
        Ect1 = 0b01,
        /// Congestion experienced.
        Ce = 0b11,
    }
}

/// A packet that was not accepted; it comes back. `crossbeam_channel`'s shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room now.
    Full(T),
    /// Nothing will ever be sent again.
    Disconnected(T),
}

impl<T> TrySendError<T> {
    /// The packet.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(packet) | TrySendError::Disconnected(packet) => packet,
        }
    }
    /// No room now.
    pub fn is_full(&self) -> bool {
        matches!(self, TrySendError::Full(_))
    }
    /// Nothing will ever be sent again.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, TrySendError::Disconnected(_))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "Full(..)" } else { "Disconnected(..)" })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "sending on a full channel" } else { "sending on an ended transmitter" })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

/// A packet that had no room for a while; it comes back. `crossbeam_channel`'s shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// No room in time.
    Timeout(T),
    /// Nothing will ever be sent again.
    Disconnected(T),
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendTimeoutError::Timeout(_) => "Timeout(..)",
            SendTimeoutError::Disconnected(_) => "Disconnected(..)",
        })
    }
}

/// `agave_xdp::transmitter`
pub mod transmitter {
    use super::{EcnCodepoint, SendTimeoutError, TrySendError};
    use crate::{DatagramOptions, Error, Sender, SenderOptions, Transmitter};
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
        os::unix::io::AsFd,
        sync::{
            atomic::{AtomicU64, Ordering},
            Arc, RwLock,
        },
        time::{Duration, Instant},
    };

    /// Where a packet goes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum XdpAddrs {
        /// To one.
        Single(SocketAddr),
        /// To each of them.
        Multi(Vec<SocketAddr>),
    }

    impl From<SocketAddr> for XdpAddrs {
        fn from(one: SocketAddr) -> Self {
            XdpAddrs::Single(one)
        }
    }

    impl From<Vec<SocketAddr>> for XdpAddrs {
        fn from(all: Vec<SocketAddr>) -> Self {
            XdpAddrs::Multi(all)
        }
    }

    impl AsRef<[SocketAddr]> for XdpAddrs {
        fn as_ref(&self) -> &[SocketAddr] {
            match self {
                XdpAddrs::Single(one) => std::slice::from_ref(one),
                XdpAddrs::Multi(all) => all,
            }
        }
    }

    /// Bytes, where they go, and where they come from.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BytesTxPacket<P> {
        src_addr: SocketAddrV4,
        dst_addrs: XdpAddrs,
        reached: usize,
        ecn: Option<EcnCodepoint>,
        allow_mtu_overflow: bool,
        payload: P,
    }

    impl<P: AsRef<[u8]>> BytesTxPacket<P> {
        /// Nothing is sent yet.
        pub fn new(
            src_addr: SocketAddrV4,
            dst_addrs: impl Into<XdpAddrs>,
            ecn: Option<EcnCodepoint>,
            payload: P,
        ) -> Self {
            BytesTxPacket {
                src_addr,
                dst_addrs: dst_addrs.into(),
                reached: 0,
                ecn,
                allow_mtu_overflow: false,
                payload,
            }
        }
        /// See the module's text.
        pub fn set_allow_mtu_overflow(&mut self, allow: bool) {
            self.allow_mtu_overflow = allow;
        }
        /// As it was set.
        pub fn allow_mtu_overflow(&self) -> bool {
            self.allow_mtu_overflow
        }
        /// Those that were not reached yet.
        pub fn dst_addrs(&self) -> &[SocketAddr] {
            &self.dst_addrs.as_ref()[self.reached..]
        }
        /// The bytes.
        pub fn payload(&self) -> &P {
            &self.payload
        }
        /// Source address and port.
        pub fn src_addr(&self) -> SocketAddrV4 {
            self.src_addr
        }
        /// The mark; `None`: not ECN-capable.
        pub fn ecn(&self) -> Option<EcnCodepoint> {
            self.ecn
        }
    }

    /// A source, and the sender that was made for it.
    type Source = (SocketAddrV4, Sender);

    struct Shared {
        transmitter: Transmitter,
        sources: RwLock<Vec<Source>>,
        refused: AtomicU64,
    }

    /// Sends packets of any source address. Clones are the same sender.
    #[derive(Clone)]
    pub struct XdpSender(Arc<Shared>);

    impl XdpSender {
        /// Over what is open; as many of them as are wanted.
        pub fn new(transmitter: &Transmitter) -> Self {
            XdpSender(Arc::new(Shared {
                transmitter: transmitter.clone(),
                sources: RwLock::new(Vec::new()),
                refused: AtomicU64::new(0),
            }))
        }

        /// Submits a packet to all of its destinations, or to the first ones: then it comes back
        /// with the rest. Where it cannot be sent at all (longer than a datagram, say, or a source
        /// that is not this host's) it is dropped, as Agave's transmitter drops it later, and
        /// [`XdpSender::refused`] counts its destinations.
        pub fn try_send<P: AsRef<[u8]>>(
            &self,
            _sender_index: usize,
            packet: BytesTxPacket<P>,
        ) -> Result<(), TrySendError<BytesTxPacket<P>>> {
            match self.source(packet.src_addr) {
                Ok((its, sender)) => self.send_from(&sender, its, packet),
                Err(error) => self.give_up(packet, &error),
            }
        }

        /// The same, and waits for room at most as long.
        pub fn send_timeout<P: AsRef<[u8]>>(
            &self,
            sender_index: usize,
            mut packet: BytesTxPacket<P>,
            timeout: Duration,
        ) -> Result<(), SendTimeoutError<BytesTxPacket<P>>> {
            let end = Instant::now() + timeout;
            loop {
                packet = match self.try_send(sender_index, packet) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Disconnected(back)) => {
                        return Err(SendTimeoutError::Disconnected(back))
                    }
                    Err(TrySendError::Full(back)) => back,
                };
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(SendTimeoutError::Timeout(packet));
                }
                if let Ok((_, sender)) = self.source(packet.src_addr) {
                    // In short pieces: others wait for the same news, and one takes them.
                    let _ = sender.wait(left.min(Duration::from_millis(1)));
                    while sender.next_error().is_some() {}
                }
            }
        }

        /// Makes the sender of a source address before its first packet.
        pub fn prepare(&self, source: SocketAddrV4) -> Result<(), Error> {
            self.source(source).map(drop)
        }

        /// Sends from the socket's address by the socket, which the program receives on. One that is
        /// bound to 0.0.0.0 serves all source addresses with its port.
        pub fn adopt(&self, socket: &UdpSocket) -> Result<(), Error> {
            let options =
                SenderOptions { adopt_socket: Some(socket.as_fd()), ..Default::default() };
            let sender = self.0.transmitter.sender(&options)?;
            if let Ok(SocketAddr::V4(its)) = socket.local_addr() {
                self.keep(its, sender);
            }
            Ok(())
        }

        /// Destinations that nothing was sent to, because nothing can be.
        pub fn refused(&self) -> u64 {
            self.0.refused.load(Ordering::Relaxed)
        }

        /// The sender for a source address, and the one that it has by itself.
        fn source(&self, source: SocketAddrV4) -> Result<Source, Error> {
            if let Some(known) = self.known(source) {
                return Ok(known);
            }
            let options = SenderOptions {
                source_port: source.port(),
                source_v4: (!source.ip().is_unspecified()).then(|| *source.ip()),
                ..Default::default()
            };
            let made = self.0.transmitter.sender(&options)?;
            Ok(self.keep(source, made))
        }

        fn known(&self, source: SocketAddrV4) -> Option<Source> {
            let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, source.port());
            let sources = self.0.sources.read().unwrap_or_else(|broken| broken.into_inner());
            let of = |wanted| sources.iter().find(|(its, _)| *its == wanted);
            of(source).or_else(|| of(any)).cloned()
        }

        /// Another thread may have made one meanwhile: the first one stays.
        fn keep(&self, source: SocketAddrV4, made: Sender) -> Source {
            let mut sources = self.0.sources.write().unwrap_or_else(|broken| broken.into_inner());
            if let Some(first) = sources.iter().find(|(its, _)| *its == source) {
                return first.clone();
            }
            sources.push((source, made.clone()));
            (source, made)
        }

        fn send_from<P: AsRef<[u8]>>(
            &self,
            sender: &Sender,
            its: SocketAddrV4,
            mut packet: BytesTxPacket<P>,
        ) -> Result<(), TrySendError<BytesTxPacket<P>>> {
            let mut options = DatagramOptions {
                source: (packet.src_addr != its).then(|| IpAddr::V4(*packet.src_addr.ip())),
                ecn: packet.ecn.map(|mark| mark as u8),
                path_mtu_probe: packet.allow_mtu_overflow,
                ..Default::default()
            };
            while !packet.dst_addrs().is_empty() {
                let (payload, to) = (packet.payload.as_ref(), packet.dst_addrs());
                match sender.try_fan_out_with(payload, to, &options) {
                    Ok(0) => return Err(TrySendError::Full(packet)),
                    Ok(more) => packet.reached += more,
                    Err(error) if error.is_unsupported() && options.path_mtu_probe => {
                        options.path_mtu_probe = false; // An adopted socket's is the program's.
                    }
                    Err(error) => return self.give_up(packet, &error),
                }
            }
            Ok(())
        }

        fn give_up<P: AsRef<[u8]>>(
            &self,
            packet: BytesTxPacket<P>,
            error: &Error,
        ) -> Result<(), TrySendError<BytesTxPacket<P>>> {
            if error.is_disconnected() {
                return Err(TrySendError::Disconnected(packet));
            }
            let left = packet.dst_addrs().len() as u64;
            self.0.refused.fetch_add(left, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// An [`XdpSender`] whose packets have one source address: what block propagation, repair and
/// gossip hold.
#[derive(Clone)]
pub struct PinnedXdpSender {
    sender: XdpSender,
    src_addr: SocketAddrV4,
}

impl PinnedXdpSender {
    /// From this address and port.
    pub fn new(sender: XdpSender, src_addr: SocketAddrV4) -> Self {
        PinnedXdpSender { sender, src_addr }
    }

    /// As [`XdpSender::try_send`].
    pub fn try_send<P: AsRef<[u8]>>(
        &self,
        sender_index: usize,
        addr: impl Into<XdpAddrs>,
        payload: P,
    ) -> Result<(), TrySendError<BytesTxPacket<P>>> {
        let packet = BytesTxPacket::new(self.src_addr, addr, None, payload);
        self.sender.try_send(sender_index, packet)
    }

    /// As [`XdpSender::send_timeout`].
    pub fn send_timeout<P: AsRef<[u8]>>(
        &self,
        sender_index: usize,
        addr: impl Into<XdpAddrs>,
        payload: P,
        timeout: Duration,
    ) -> Result<(), SendTimeoutError<BytesTxPacket<P>>> {
        let packet = BytesTxPacket::new(self.src_addr, addr, None, payload);
        self.sender.send_timeout(sender_index, packet, timeout)
    }

    /// As [`XdpSender::adopt`].
    pub fn adopt(&self, socket: &UdpSocket) -> Result<(), crate::Error> {
        self.sender.adopt(socket)
    }
}
