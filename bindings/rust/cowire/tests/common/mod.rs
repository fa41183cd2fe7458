// SPDX-License-Identifier: Apache-2.0
//! Two hosts: the tests run in one; COWIRE_TEST_PEER is the network namespace of the other
//! (/run/netns/...), which is 10.77.1.2 and fd77:1::2. `tests/rust/rust_test.py` makes both.
#![allow(dead_code)] // Each test program uses some of it.
use std::{
    env, fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::{raw::c_int, unix::io::AsRawFd},
    thread,
    time::{Duration, Instant},
};

extern "C" {
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_int, size: u32) -> c_int;
}
const CLONE_NEWNET: c_int = 0x4000_0000;
const SOL_SOCKET: c_int = 1;
const SO_RCVBUFFORCE: c_int = 33;
/// A receiver that waits for a CPU loses nothing meanwhile.
const BUFFER_BYTES: c_int = 32 << 20;

pub const DEADLINE: Duration = Duration::from_secs(60);

/// A socket of the other host.
pub fn peer_socket(address: &'static str) -> UdpSocket {
    let path = env::var("COWIRE_TEST_PEER").expect("COWIRE_TEST_PEER: needs tests/rust/rust_test.py");
    // A thread of its own: it stays in the other namespace until it ends.
    thread::spawn(move || {
        let namespace = fs::File::open(&path).unwrap();
        // SAFETY: it changes this thread only.
        assert_eq!(0, unsafe { setns(namespace.as_raw_fd(), CLONE_NEWNET) }, "setns {path}");
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // SAFETY: it reads one number.
        let done = unsafe {
            setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_RCVBUFFORCE, &BUFFER_BYTES, 4)
        };
        assert_eq!(0, done, "SO_RCVBUFFORCE");
        socket
    })
    .join()
    .unwrap()
}

pub fn peer_v4() -> (UdpSocket, SocketAddr) {
    let socket = peer_socket("10.77.1.2:0");
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub fn peer_v6() -> (UdpSocket, SocketAddr) {
    let socket = peer_socket("[fd77:1::2]:0");
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A thread that has made an io_uring may be interrupted by it, and what waits with a time limit is
/// not begun again by the kernel.
fn receive(from: &UdpSocket, room: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    loop {
        match from.recv_from(room) {
            Err(failed) if failed.kind() == std::io::ErrorKind::Interrupted => continue,
            done => return done,
        }
    }
}

/// The next datagram, and whence it came.
pub fn next(from: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut room = [0; 65536];
    let (length, source) = receive(from, &mut room).expect("a datagram");
    (room[..length].to_vec(), source)
}

/// Asserts that nothing else arrives: whatever was sent before is on the way no more.
pub fn expect_nothing_more(at: &UdpSocket) {
    at.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut room = [0; 64];
    assert!(receive(at, &mut room).is_err(), "a datagram too many");
    at.set_read_timeout(Some(DEADLINE)).unwrap();
}

pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

pub fn settled(tx: &cowire::Transmitter) -> bool {
    eventually(|| tx.counter("on_the_way") == Some(0))
}

pub fn own(family_of: SocketAddr) -> IpAddr {
    let text = if family_of.is_ipv4() { "10.77.1.1" } else { "fd77:1::1" };
    text.parse().unwrap()
}

pub fn open(frames: u32, shared_producers: u32) -> cowire::Transmitter {
    let options = cowire::Options { frames, shared_producers, ..Default::default() };
    cowire::Transmitter::open(&options).unwrap()
}

/// A sender of its own transmitter, and who it sends to.
pub fn one_way(
    frames: u32,
    shared_producers: u32,
) -> (cowire::Transmitter, cowire::Sender, UdpSocket, SocketAddr) {
    let tx = open(frames, shared_producers);
    let sender = tx.sender(&cowire::SenderOptions::default()).unwrap();
    let (peer, address) = peer_v4();
    (tx, sender, peer, address)
}
