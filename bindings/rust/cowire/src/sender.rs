// SPDX-License-Identifier: Apache-2.0
//! One source of datagrams.
use crate::{
    address::{from_c, source_to_c, to_c, CHUNK, NOWHERE},
    error::{Error, TrySendError},
    frame::Frame,
    transmitter::{c_string, Transmitter},
};
use cowire_sys as sys;
use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        raw::{c_int, c_short, c_ulong},
        unix::io::{AsRawFd, BorrowedFd, RawFd},
    },
    ptr,
    sync::Arc,
    time::Duration,
};

/// Of a [`Sender`]. 0 and `None`: as a plain socket has it.
#[derive(Clone, Debug, Default)]
pub struct SenderOptions<'a> {
    /// 0 = one that the kernel picks.
    pub source_port: u16,
    /// As IP_TOS and IPV6_TCLASS: DSCP and ECN.
    pub tos: u8,
    /// As IP_TTL and IPV6_UNICAST_HOPS.
    pub ttl: u8,
    /// As SO_MARK.
    pub mark: u32,
    /// As SO_BINDTODEVICE.
    pub device: Option<String>,
    /// A bound UDP socket to send as, whose port a program receives on; it is duplicated.
    pub adopt_socket: Option<BorrowedFd<'a>>,
    /// Unread error reports beyond are dropped; 0 = 64.
    pub errors_max: u32,
    /// Source address of IPv4 datagrams; `None` = as the routes say.
    pub source_v4: Option<Ipv4Addr>,
    /// Source address of IPv6 datagrams; `None` = as the routes say.
    pub source_v6: Option<Ipv6Addr>,
}

/// What the datagrams of one call choose for themselves; `None`: as the sender has it. Each
/// combination but for ECN has a flow class of its own, whose first datagrams go through the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// As IP_PKTINFO and IPV6_PKTINFO: an address of this host, of the destinations' family.
    pub source: Option<IpAddr>,
    /// 0 to 63.
    pub dscp: Option<u8>,
    /// 0 to 3, as RFC 3168 numbers them.
    pub ecn: Option<u8>,
    /// As IP_TTL and IPV6_HOPLIMIT; 0 is as `None`.
    pub ttl: Option<u8>,
    /// As SO_MARK.
    pub mark: Option<u32>,
    /// As IP_PMTUDISC_PROBE: never fragmented, and refused where it is longer than the device takes.
    /// Through the kernel where it is longer than the path MTU. Not of an adopted socket
    /// (EOPNOTSUPP).
    pub path_mtu_probe: bool,
}

impl DatagramOptions {
    pub(crate) fn raw(&self) -> sys::cowire_datagram_options {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        sys::cowire_datagram_options {
            size: mem::size_of::<sys::cowire_datagram_options>(),
            source: source_to_c(self.source),
            dscp: self.dscp.map_or(-1, c_int::from),
            ecn: self.ecn.map_or(-1, c_int::from),
            ttl: self.ttl.map_or(0, u32::from),
            flags: flag(self.mark.is_some(), sys::COWIRE_WITH_MARK)
                | flag(self.path_mtu_probe, sys::COWIRE_PATH_MTU_PROBE),
            mark: self.mark.unwrap_or(0),
        }
    }
}

/// Something that the kernel or the network said about a datagram submitted earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendError {
    /// Where it was to go.
    pub destination: Option<SocketAddr>,
    /// A positive errno: ENETUNREACH, ECONNREFUSED, EMSGSIZE ...
    pub number: i32,
    /// With EMSGSIZE: the path MTU in bytes, where it is known.
    pub mtu: Option<u32>,
    /// An ICMP message said so; else this host refused it.
    pub from_network: bool,
}

/// A source of datagrams: port, mark and so on. Cloning it costs an increment, and every clone may
/// be used from every thread.
#[derive(Clone)]
pub struct Sender(Arc<Open>);

struct Open {
    raw: *mut sys::cowire_sender,
    _transmitter: Transmitter, // Dropped after the sender is closed.
}
// SAFETY: cowire.h: all calls may be made from any thread at once, on the same handles too.
unsafe impl Send for Open {}
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: the last handle: nobody calls with it.
        unsafe { sys::cowire_sender_close(self.raw) }
    }
}

/// poll(2).
#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}
const POLLIN: c_short = 1;
extern "C" {
    fn poll(all: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
}

/// A call's result as a number of accepted ones: no room at all is none of them.
fn accepted(result: isize) -> Result<usize, Error> {
    match result {
        n if n >= 0 => Ok(n as usize),
        n if n == -(sys::EAGAIN as isize) => Ok(0),
        n => Err(Error::last(n)),
    }
}

impl Sender {
    pub(crate) fn open(tx: &Transmitter, options: &SenderOptions<'_>) -> Result<Self, Error> {
        let device = options.device.as_ref().map(|name| c_string("device", name.as_bytes()));
        let device = device.transpose()?;
        let raw = sys::cowire_sender_options {
            size: mem::size_of::<sys::cowire_sender_options>(),
            source_port: options.source_port,
            tos: options.tos,
            ttl: options.ttl,
            mark: options.mark,
            device: device.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
            adopt_socket: options.adopt_socket.map_or(-1, |fd| fd.as_raw_fd()),
            errors_max: options.errors_max,
            source_v4: source_to_c(options.source_v4),
            source_v6: source_to_c(options.source_v6),
        };
        let mut out = ptr::null_mut();
        // SAFETY: what `raw` points to lives until the call returns.
        match unsafe { sys::cowire_sender_open(tx.raw(), &raw, &mut out) } {
            0 => Ok(Sender(Arc::new(Open { raw: out, _transmitter: tx.clone() }))),
            failed => Err(Error::last(failed as isize)),
        }
    }

    /// Copies the payload and submits it; the packet comes back where it was not accepted.
    pub fn try_send<P: AsRef<[u8]>>(&self, packet: P, to: SocketAddr) -> Result<(), TrySendError<P>> {
        let bytes = packet.as_ref();
        let one = sys::cowire_datagram {
            data: bytes.as_ptr().cast(),
            length: bytes.len(),
            to: to_c(to),
            reserved: 0,
        };
        // SAFETY: it is read during the call only.
        match unsafe { sys::cowire_try_send(self.raw(), &one, 1) } {
            1 => Ok(()),
            failed => Err(TrySendError::last(packet, failed)),
        }
    }

    /// Copies and submits datagrams in order; returns how many were accepted, which are the first
    /// ones: 0 where there is no room now. An error is the first one's.
    pub fn try_send_batch<P: AsRef<[u8]>>(&self, all: &[(P, SocketAddr)]) -> Result<usize, Error> {
        let none = sys::cowire_datagram { data: ptr::null(), length: 0, to: NOWHERE, reserved: 0 };
        let mut raw = [none; CHUNK];
        self.by_chunks(all, |some| {
            for (into, (packet, to)) in raw.iter_mut().zip(some) {
                let bytes = packet.as_ref();
                into.data = bytes.as_ptr().cast();
                into.length = bytes.len();
                into.to = to_c(*to);
            }
            // SAFETY: as many were just filled in.
            unsafe { sys::cowire_try_send(self.raw(), raw.as_ptr(), some.len()) }
        })
    }

    /// The same bytes to many, in order; returns as [`Sender::try_send_batch`] does, so that a
    /// retry with the rest sends nothing twice.
    pub fn try_fan_out(&self, payload: &[u8], to: &[SocketAddr]) -> Result<usize, Error> {
        self.fan_out(payload, to, ptr::null())
    }

    /// The same with choices of these datagrams' own.
    pub fn try_fan_out_with(
        &self,
        payload: &[u8],
        to: &[SocketAddr],
        options: &DatagramOptions,
    ) -> Result<usize, Error> {
        self.fan_out(payload, to, &options.raw())
    }

    fn fan_out(
        &self,
        payload: &[u8],
        to: &[SocketAddr],
        options: *const sys::cowire_datagram_options,
    ) -> Result<usize, Error> {
        let mut raw = [NOWHERE; CHUNK];
        self.by_chunks(to, |some| {
            for (into, address) in raw.iter_mut().zip(some) {
                *into = to_c(*address);
            }
            let (data, length) = (payload.as_ptr().cast(), payload.len());
            // SAFETY: as many were just filled in.
            unsafe {
                let addresses = raw.as_ptr();
                sys::cowire_fan_out(self.raw(), data, length, addresses, some.len(), options)
            }
        })
    }

    /// Calls for up to CHUNK of them at a time, until one is not accepted.
    fn by_chunks<T>(&self, all: &[T], mut call: impl FnMut(&[T]) -> isize) -> Result<usize, Error> {
        let mut done = 0;
        for some in all.chunks(CHUNK) {
            let n = match accepted(call(some)) {
                Err(error) if done == 0 => return Err(error),
                Err(_) => 0, // The next call says it.
                Ok(n) => n,
            };
            done += n;
            if n < some.len() {
                break;
            }
        }
        Ok(done)
    }

    /// A place in the memory that the NIC reads, to write a datagram into. An error that
    /// [`Error::is_would_block`]: there is none now.
    pub fn acquire(&self) -> Result<Frame, Error> {
        Frame::acquire(self)
    }

    /// Waits for room after a full one, or for error reports, at most as long; false where the time
    /// has passed, and an error where a signal came. Call [`Sender::next_error`] until `None` before the next wait. Another thread may
    /// take the news away: wait in short pieces where several do.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let mut one = PollFd { fd: self.as_raw_fd(), events: POLLIN, revents: 0 };
        let timeout_ms = timeout.as_millis().min(c_int::MAX as u128) as c_int;
        // SAFETY: one descriptor, which lives.
        match unsafe { poll(&mut one, 1, timeout_ms) } {
            -1 => Err(io::Error::last_os_error()),
            count => Ok(count == 1),
        }
    }

    /// The oldest error report.
    pub fn next_error(&self) -> Option<SendError> {
        let mut raw =
            sys::cowire_error { destination: NOWHERE, number: 0, mtu: 0, from_network: 0 };
        // SAFETY: it fills the struct.
        (unsafe { sys::cowire_next_error(self.raw(), &mut raw) } == 0).then(|| SendError {
            destination: from_c(&raw.destination),
            number: raw.number,
            mtu: (raw.mtu != 0).then(|| raw.mtu),
            from_network: raw.from_network != 0,
        })
    }

    /// Reports that were dropped because nobody read them.
    pub fn errors_dropped(&self) -> u64 {
        // SAFETY: the handle is open.
        unsafe { sys::cowire_errors_dropped(self.raw()) }
    }

    /// The port that it sends from.
    pub fn source_port(&self) -> u16 {
        // SAFETY: the handle is open.
        unsafe { sys::cowire_source_port(self.raw()) }
    }

    /// The longest payload in bytes.
    pub fn payload_max(&self) -> usize {
        // SAFETY: the handle is open.
        unsafe { sys::cowire_payload_max(self.raw()) }
    }

    pub(crate) fn raw(&self) -> *mut sys::cowire_sender {
        self.0.raw
    }
}

impl AsRawFd for Sender {
    /// Becomes readable when there is room again after a full one, and while error reports may be
    /// waiting; for poll(2) and the like. Not to be read, written or closed.
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: the handle is open.
        unsafe { sys::cowire_sender_fd(self.raw()) }
    }
}
