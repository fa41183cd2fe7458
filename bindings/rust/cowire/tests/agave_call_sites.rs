// SPDX-License-Identifier: Apache-2.0
//! Call sites as Agave's retransmit, broadcast, repair and gossip have them, over
//! `cowire::compat::agave`: only the `use` lines name cowire. Ignored without another host:
//! tests/rust.
mod common;
use common::*;

use cowire::compat::agave::{
    transmitter::{BytesTxPacket, XdpAddrs, XdpSender},
    EcnCodepoint, PinnedXdpSender, SendTimeoutError, TrySendError,
};
use cowire::SenderOptions;
use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

/// Stands for `bytes::Bytes`: counted, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bytes(Arc<[u8]>);
impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.into())
    }
}

/// Retransmit: one shred to all children in the tree; what has no room is dropped and counted.
fn retransmit_shred(
    thread_index: usize,
    shred: &Bytes,
    children: Vec<SocketAddr>,
    xdp_sender: &PinnedXdpSender,
    dropped: &mut usize,
) -> usize {
    let count = children.len();
    match xdp_sender.try_send(thread_index, children, shred.clone()) {
        Ok(()) => count,
        Err(TrySendError::Full(_)) => {
            *dropped += count;
            0
        }
        Err(TrySendError::Disconnected(_)) => unreachable!("the transmitter has ended"),
    }
}

/// Broadcast: shreds one by one, each to the root of its tree.
fn broadcast_shreds(
    xdp_sender: &PinnedXdpSender,
    packets: &[(Bytes, SocketAddr)],
) -> Result<(), TrySendError<BytesTxPacket<Bytes>>> {
    for (index, (payload, address)) in packets.iter().enumerate() {
        xdp_sender.try_send(index, *address, payload.clone())?;
    }
    Ok(())
}

/// Repair: waits a little for room.
fn send_repair_requests(xdp_sender: &PinnedXdpSender, batch: Vec<(Vec<u8>, SocketAddr)>) -> usize {
    let mut failed = 0;
    for (index, (request, address)) in batch.into_iter().enumerate() {
        match xdp_sender.send_timeout(index, address, request, Duration::from_secs(10)) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_)) | Err(SendTimeoutError::Disconnected(_)) => failed += 1,
        }
    }
    failed
}

/// Gossip: from the socket that it receives on.
struct GossipSender {
    socket: Arc<UdpSocket>,
    xdp_sender: PinnedXdpSender,
}
impl GossipSender {
    fn send(&self, packets: &[(Bytes, SocketAddr)]) -> usize {
        let sent = |(index, (payload, address)): (usize, &(Bytes, SocketAddr))| {
            self.xdp_sender.try_send(index, XdpAddrs::from(*address), payload.clone()).is_ok()
        };
        packets.iter().enumerate().filter(|one| sent(*one)).count()
    }
}

/// QUIC: source and mark per packet.
fn transmit(
    sender: &XdpSender,
    source: SocketAddrV4,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: &[u8],
) -> Result<(), TrySendError<BytesTxPacket<Bytes>>> {
    let mut packet = BytesTxPacket::new(source, destination, ecn, Bytes::from(contents));
    packet.set_allow_mtu_overflow(false);
    sender.try_send(0, packet)
}

fn source(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new("10.77.1.1".parse().unwrap(), port)
}

#[test]
#[ignore = "needs two hosts"]
fn block_propagation_reaches_everybody_from_one_source() {
    let tx = open(1024, 2);
    let pinned = PinnedXdpSender::new(XdpSender::new(&tx), source(8001));
    let peers: Vec<_> = (0..200).map(|_| peer_v4()).collect();
    let children: Vec<_> = peers.iter().map(|(_, address)| *address).collect();
    let threads: Vec<_> = (0..4usize)
        .map(|index| {
            let (pinned, children) = (pinned.clone(), children.clone());
            thread::spawn(move || {
                let shred = Bytes::from(&[index as u8; 1203][..]);
                let mut dropped = 0;
                // Retried as a whole only where nothing of it had room: there is room for all four.
                let reached = retransmit_shred(index, &shred, children, &pinned, &mut dropped);
                assert_eq!((200, 0), (reached, dropped));
            })
        })
        .collect();
    for one in threads {
        one.join().unwrap();
    }
    for (socket, _) in &peers {
        let mut marks: Vec<_> = (0..4)
            .map(|_| {
                let (bytes, from) = next(socket);
                assert_eq!((1203, SocketAddr::from(source(8001))), (bytes.len(), from));
                bytes[0]
            })
            .collect();
        marks.sort_unstable();
        assert_eq!(vec![0, 1, 2, 3], marks);
    }
    let shreds: Vec<_> =
        children.iter().map(|address| (Bytes::from(&b"data"[..]), *address)).collect();
    broadcast_shreds(&pinned, &shreds).unwrap();
    for (socket, _) in &peers {
        assert_eq!(b"data".to_vec(), next(socket).0);
    }
}

#[test]
#[ignore = "needs two hosts"]
fn a_fan_out_that_is_cut_short_comes_back_with_the_rest() {
    const TIMES: usize = 40;
    let tx = open(64, 1);
    let sender = XdpSender::new(&tx);
    sender.prepare(source(8002)).unwrap();
    let peers: Vec<_> = (0..100).map(|_| peer_v4()).collect();
    let once: Vec<_> = peers.iter().map(|(_, address)| *address).collect();
    let (mut cut, mut rounds) = (0, 0);
    // Far more destinations than frames. These may all be home in time; but somebody else takes
    // what there are, time and again, so that sooner or later a fan-out finds none in its middle.
    let other = tx.sender(&SenderOptions::default()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    let taking = thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let taken: Vec<_> = std::iter::from_fn(|| other.acquire().ok()).collect();
            thread::sleep(Duration::from_micros(100));
            drop(taken);
        }
    });
    while cut == 0 && rounds < 100 {
        rounds += 1;
        let all: Vec<_> = once.iter().cycle().take(once.len() * TIMES).copied().collect();
        let mut packet = BytesTxPacket::new(source(8002), all.clone(), None, Bytes::from(&b"x"[..]));
        let mut left = all.len();
        assert!(eventually(|| match sender.try_send(0, packet.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(rest)) => {
                assert!(rest.dst_addrs().len() <= left);
                assert_eq!(&all[all.len() - rest.dst_addrs().len()..], rest.dst_addrs());
                left = rest.dst_addrs().len();
                cut += usize::from(left < all.len());
                packet = rest;
                false
            }
            Err(other) => panic!("{other}"),
        }));
    }
    done.store(true, Ordering::Relaxed);
    taking.join().unwrap();
    assert!(cut > 0);
    for (socket, _) in &peers {
        for _ in 0..rounds * TIMES {
            assert_eq!(b"x".to_vec(), next(socket).0);
        }
    }
    assert!(settled(&tx));
    thread::sleep(Duration::from_millis(100));
    for (socket, _) in &peers {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 64]).is_err(), "a datagram too many");
    }
}

#[test]
#[ignore = "needs two hosts"]
fn repair_waits_for_room() {
    let tx = open(64, 1);
    let pinned = PinnedXdpSender::new(XdpSender::new(&tx), source(8003));
    let (peer, address) = peer_v4();
    let requests = (0..500u32).map(|i| (i.to_be_bytes().to_vec(), address)).collect();
    let receiver = thread::spawn(move || {
        for i in 0..500u32 {
            assert_eq!(i.to_be_bytes().to_vec(), next(&peer).0);
        }
    });
    assert_eq!(0, send_repair_requests(&pinned, requests));
    receiver.join().unwrap();
}

#[test]
#[ignore = "needs two hosts"]
fn gossip_sends_from_the_port_that_it_receives_on() {
    let tx = open(64, 1);
    let socket = Arc::new(UdpSocket::bind("10.77.1.1:0").unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = match socket.local_addr().unwrap() {
        SocketAddr::V4(v4) => v4,
        SocketAddr::V6(_) => unreachable!(),
    };
    let xdp_sender = PinnedXdpSender::new(XdpSender::new(&tx), address);
    xdp_sender.adopt(&socket).unwrap();
    let gossip = GossipSender { socket, xdp_sender };
    let (peer, to) = peer_v4();
    assert_eq!(1, gossip.send(&[(Bytes::from(&b"pull"[..]), to)]));
    let (_, from) = next(&peer);
    assert_eq!(SocketAddr::from(address), from);
    peer.send_to(b"push", from).unwrap();
    assert_eq!(b"push".to_vec(), next(&gossip.socket).0);
}

#[test]
#[ignore = "needs two hosts"]
fn quic_marks_its_packets_and_what_cannot_be_sent_is_counted() {
    let tx = open(64, 1);
    let sender = XdpSender::new(&tx);
    let (peer, to) = peer_v4();
    for (ecn, bits) in [
        (None, 0),
        (Some(EcnCodepoint::Ect0), 2),
        (Some(EcnCodepoint::Ect1), 1),
        (Some(EcnCodepoint::Ce), 3),
    ] {
        transmit(&sender, source(8004), to, ecn, b"initial").unwrap();
        assert_eq!((bits, 8004), tos_of_next(&peer));
    }
    // From the socket that it receives on, too, bound to one address or to all of them.
    for bound in ["10.77.1.1:0", "0.0.0.0:0"] {
        let socket = UdpSocket::bind(bound).unwrap();
        sender.adopt(&socket).unwrap();
        let port = socket.local_addr().unwrap().port();
        for (ecn, bits) in [(None, 0), (Some(EcnCodepoint::Ect0), 2), (None, 0)] {
            transmit(&sender, source(port), to, ecn, b"handshake").unwrap();
            assert_eq!((bits, port), tos_of_next(&peer));
        }
    }
    let mut probe = BytesTxPacket::new(source(8004), to, None, Bytes::from(&b"probe"[..]));
    probe.set_allow_mtu_overflow(true);
    sender.try_send(0, probe).unwrap();
    assert_eq!((0, 8004), tos_of_next(&peer));
    assert_eq!(0, sender.refused());
    let foreign = SocketAddrV4::new("192.0.2.77".parse().unwrap(), 8005);
    transmit(&sender, foreign, to, None, b"initial").unwrap();
    assert_eq!(1, sender.refused());
}

/// The TOS byte of the next datagram, and its source port.
fn tos_of_next(at: &UdpSocket) -> (u8, u16) {
    use std::os::{raw::c_int, raw::c_void, unix::io::AsRawFd};
    #[repr(C)]
    struct Pieces(*mut c_void, usize);
    #[repr(C)]
    struct Message(*mut c_void, u32, *mut Pieces, usize, *mut c_void, usize, c_int);
    extern "C" {
        fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_int, size: u32) -> c_int;
        fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize;
    }
    const IP_RECVTOS: c_int = 13;
    let (mut address, mut bytes, mut control) = ([0u8; 16], [0u8; 64], [0u64; 8]);
    let mut pieces = Pieces(bytes.as_mut_ptr().cast(), bytes.len());
    let mut message = Message(
        address.as_mut_ptr().cast(), 16, &mut pieces, 1, control.as_mut_ptr().cast(), 64, 0,
    );
    // SAFETY: all that it points to lives, and is as large as it says.
    unsafe {
        assert_eq!(0, setsockopt(at.as_raw_fd(), 0, IP_RECVTOS, &1, 4));
        assert!(recvmsg(at.as_raw_fd(), &mut message, 0) >= 0);
    }
    // cmsghdr: length, then level and type, then the byte: cmsg(3).
    (control[2].to_ne_bytes()[0], u16::from_be_bytes([address[2], address[3]]))
}
