// SPDX-License-Identifier: Apache-2.0
//! The C interface of cowire, word for word: what each function and field does, and which thread
//! may call it, says `cowire.h`. Written by hand; `tests/layout.rs` compares it with the header.
#![allow(non_camel_case_types)]

use std::marker::{PhantomData, PhantomPinned};
pub use std::os::raw::{c_char, c_int, c_void};

pub const AF_UNSPEC: u16 = 0;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// Linux's errno values that the interface names.
pub const EAGAIN: c_int = 11;
pub const EINVAL: c_int = 22;
pub const ECHILD: c_int = 10;
pub const EMSGSIZE: c_int = 90;
pub const EOPNOTSUPP: c_int = 95;
pub const EAFNOSUPPORT: c_int = 97;
pub const ESHUTDOWN: c_int = 108;

/// ip(7): address and port in network byte order, as they lie in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sockaddr_in {
    pub sin_family: u16,
    pub sin_port: u16,
    pub sin_addr: u32,
    pub sin_zero: [u8; 8],
}

/// ipv6(7): the flow label and port in network byte order, the scope id in the host's.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sockaddr_in6 {
    pub sin6_family: u16,
    pub sin6_port: u16,
    pub sin6_flowinfo: u32,
    pub sin6_addr: [u8; 16],
    pub sin6_scope_id: u32,
}

/// `any.sa_family` of C is `family` here; it lies where those of the others do.
#[repr(C)]
#[derive(Clone, Copy)]
pub union cowire_address {
    pub family: u16,
    pub v4: sockaddr_in,
    pub v6: sockaddr_in6,
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        #[repr(C)]
        pub struct $name {
            _nothing: [u8; 0],
            _not_send: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}
opaque!(cowire_transmitter cowire_sender);

pub const COWIRE_MODE_AUTO: u32 = 0;
pub const COWIRE_MODE_ZERO_COPY: u32 = 1;
pub const COWIRE_MODE_COPY: u32 = 2;
pub const COWIRE_MODE_KERNEL: u32 = 3;

#[repr(C)]
pub struct cowire_options {
    pub size: usize,
    pub interfaces: *const c_char,
    pub mode: u32,
    pub tx_cores: u32,
    pub frames: u32,
    pub shared_producers: u32,
    pub log_fd: c_int,
    pub reserved: u32,
}

#[repr(C)]
pub struct cowire_sender_options {
    pub size: usize,
    pub source_port: u16,
    pub tos: u8,
    pub ttl: u8,
    pub mark: u32,
    pub device: *const c_char,
    pub adopt_socket: c_int,
    pub errors_max: u32,
    pub source_v4: cowire_address,
    pub source_v6: cowire_address,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cowire_datagram {
    pub data: *const c_void,
    pub length: usize,
    pub to: cowire_address,
    pub reserved: u32,
}

/// As COWIRE_DATAGRAM_OPTIONS_INIT to begin with: `size` its own, `dscp` and `ecn` -1, the rest 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cowire_datagram_options {
    pub size: usize,
    pub source: cowire_address,
    pub dscp: c_int,
    pub ecn: c_int,
    pub ttl: u32,
    pub flags: u32,
    pub mark: u32,
}

pub const COWIRE_WITH_MARK: u32 = 1;
pub const COWIRE_PATH_MTU_PROBE: u32 = 2;

#[repr(C)]
pub struct cowire_frame {
    pub data: *mut c_void,
    pub capacity: usize,
    pub length: usize,
    pub opaque: [u64; 6],
}

#[repr(C)]
pub struct cowire_error {
    pub destination: cowire_address,
    pub number: c_int,
    pub mtu: u32,
    pub from_network: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct cowire_counter {
    pub name: *const c_char,
    pub value: u64,
}

extern "C" {
    pub fn cowire_version() -> *const c_char;
    pub fn cowire_text() -> *const c_char;
    pub fn cowire_open(options: *const cowire_options, out: *mut *mut cowire_transmitter) -> c_int;
    pub fn cowire_open_file(path: *const c_char, out: *mut *mut cowire_transmitter) -> c_int;
    pub fn cowire_close(tx: *mut cowire_transmitter);
    pub fn cowire_sender_open(
        tx: *mut cowire_transmitter,
        options: *const cowire_sender_options,
        out: *mut *mut cowire_sender,
    ) -> c_int;
    pub fn cowire_sender_close(s: *mut cowire_sender);
    pub fn cowire_source_port(s: *const cowire_sender) -> u16;
    pub fn cowire_payload_max(s: *const cowire_sender) -> usize;
    pub fn cowire_try_send(
        s: *mut cowire_sender,
        datagrams: *const cowire_datagram,
        n: usize,
    ) -> isize;
    pub fn cowire_try_send_with(
        s: *mut cowire_sender,
        datagrams: *const cowire_datagram,
        n: usize,
        options: *const cowire_datagram_options,
    ) -> isize;
    pub fn cowire_fan_out(
        s: *mut cowire_sender,
        data: *const c_void,
        length: usize,
        addresses: *const cowire_address,
        n: usize,
        options: *const cowire_datagram_options,
    ) -> isize;
    pub fn cowire_frame_acquire(s: *mut cowire_sender, frame: *mut cowire_frame) -> c_int;
    pub fn cowire_frame_submit(
        s: *mut cowire_sender,
        frame: *mut cowire_frame,
        addresses: *const cowire_address,
        n: usize,
    ) -> isize;
    pub fn cowire_frame_submit_with(
        s: *mut cowire_sender,
        frame: *mut cowire_frame,
        addresses: *const cowire_address,
        n: usize,
        options: *const cowire_datagram_options,
    ) -> isize;
    pub fn cowire_frame_release(frame: *mut cowire_frame);
    pub fn cowire_sender_fd(s: *const cowire_sender) -> c_int;
    pub fn cowire_next_error(s: *mut cowire_sender, error: *mut cowire_error) -> c_int;
    pub fn cowire_errors_dropped(s: *const cowire_sender) -> u64;
    pub fn cowire_counters(
        tx: *const cowire_transmitter,
        counters: *mut cowire_counter,
        n: usize,
    ) -> usize;
    pub fn cowire_explain(question: *const c_char, json: *mut c_char, size: usize) -> isize;
}
