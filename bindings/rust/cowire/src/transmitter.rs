// SPDX-License-Identifier: Apache-2.0
//! What has the threads, sockets and frames.
use crate::{
    error::Error,
    sender::{Sender, SenderOptions},
};
use cowire_sys as sys;
use std::{
    ffi::{CStr, CString},
    mem,
    os::unix::{
        ffi::OsStrExt,
        io::{AsRawFd, BorrowedFd},
    },
    path::Path,
    ptr,
    sync::Arc,
};

/// How interfaces are sent through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The best that works, interface by interface.
    #[default]
    Auto,
    /// The NIC reads the frames; an interface that cannot is an error.
    ZeroCopy,
    /// The kernel's driver copies them.
    Copy,
    /// No AF_XDP: the kernel sends everything.
    Kernel,
}

/// Where it is written what an operator should know, a line each; where one cannot be written at
/// once it is left out.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Warnings<'a> {
    /// The process's standard error.
    #[default]
    Stderr,
    /// To nobody.
    Nowhere,
    /// A descriptor, which is duplicated.
    To(BorrowedFd<'a>),
}

/// Of a [`Transmitter`]. 0, `None` and an empty list: the library's default.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Names of interfaces; none = all Ethernet devices.
    pub interfaces: Vec<String>,
    /// How they are sent through.
    pub mode: Mode,
    /// Threads that fill the NIC's queues; 0 = 1.
    pub tx_cores: u32,
    /// Datagrams on the way at once, of all senders together; 0 = 4096.
    pub frames: u32,
    /// Parts of them; a thread uses one. 1 keeps the order of all threads together. 0 = 4.
    pub shared_producers: u32,
    /// Where warnings go.
    pub warnings: Warnings<'a>,
}

/// A handle of the threads, sockets and frames; [`Sender`]s are made from it.
#[derive(Clone)]
pub struct Transmitter(Arc<Open>);

struct Open(*mut sys::cowire_transmitter);
// SAFETY: cowire.h: all calls may be made from any thread at once, on the same handles too.
unsafe impl Send for Open {}
unsafe impl Sync for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: the last handle: nobody calls with it.
        unsafe { sys::cowire_close(self.0) }
    }
}

pub(crate) fn c_string(what: &str, bytes: &[u8]) -> Result<CString, Error> {
    CString::new(bytes).map_err(|_| {
        Error::invalid(format!("{what} '{}' holds a NUL", String::from_utf8_lossy(bytes)))
    })
}

impl Transmitter {
    /// Returns when routes are read and sockets bound.
    pub fn open(options: &Options<'_>) -> Result<Self, Error> {
        let interfaces = c_string("interfaces", options.interfaces.join(",").as_bytes())?;
        let raw = sys::cowire_options {
            size: mem::size_of::<sys::cowire_options>(),
            interfaces: if interfaces.as_bytes().is_empty() { ptr::null() } else { interfaces.as_ptr() },
            mode: match options.mode {
                Mode::Auto => sys::COWIRE_MODE_AUTO,
                Mode::ZeroCopy => sys::COWIRE_MODE_ZERO_COPY,
                Mode::Copy => sys::COWIRE_MODE_COPY,
                Mode::Kernel => sys::COWIRE_MODE_KERNEL,
            },
            tx_cores: options.tx_cores,
            frames: options.frames,
            shared_producers: options.shared_producers,
            log_fd: match options.warnings {
                Warnings::Stderr => 0,
                Warnings::Nowhere => -1,
                Warnings::To(fd) => fd.as_raw_fd(),
            },
            reserved: 0,
        };
        // SAFETY: what `raw` points to lives until the call returns.
        Self::from_call(|out| unsafe { sys::cowire_open(&raw, out) })
    }

    /// With a configuration file of the `cowire` command (TOML). Warnings go to stderr.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = c_string("path", path.as_ref().as_os_str().as_bytes())?;
        // SAFETY: as above.
        Self::from_call(|out| unsafe { sys::cowire_open_file(path.as_ptr(), out) })
    }

    fn from_call(call: impl FnOnce(*mut *mut sys::cowire_transmitter) -> i32) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        match call(&mut raw) {
            0 => Ok(Transmitter(Arc::new(Open(raw)))),
            failed => Err(Error::last(failed as isize)),
        }
    }

    /// A new source of datagrams. It may wait for the kernel.
    pub fn sender(&self, options: &SenderOptions<'_>) -> Result<Sender, Error> {
        Sender::open(self, options)
    }

    /// What became of all datagrams, by name: always the same names in the same order for a version
    /// of the library. submitted = transmitted + kernel_path + refused + lost_in_device + shed +
    /// on_the_way.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let none = sys::cowire_counter { name: ptr::null(), value: 0 };
        // SAFETY: it fills no more than it is told to.
        let mut raw = vec![none; unsafe { sys::cowire_counters(self.0 .0, ptr::null_mut(), 0) }];
        let there = unsafe { sys::cowire_counters(self.0 .0, raw.as_mut_ptr(), raw.len()) };
        raw.truncate(there);
        // SAFETY: names last as long as the library is loaded, which this crate never unloads.
        let name = |one: &sys::cowire_counter| unsafe { CStr::from_ptr(one.name) };
        raw.iter().map(|one| (name(one).to_str().unwrap_or("?"), one.value)).collect()
    }

    /// One of the counters.
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters().into_iter().find(|(its, _)| *its == name).map(|(_, value)| value)
    }

    pub(crate) fn raw(&self) -> *mut sys::cowire_transmitter {
        self.0 .0
    }
}

/// Version of the library, "MAJOR.MINOR.PATCH".
pub fn version() -> &'static str {
    // SAFETY: a constant of the library.
    unsafe { CStr::from_ptr(sys::cowire_version()) }.to_str().unwrap_or("?")
}

/// What would become of a datagram, in the words of `ip route get` ("192.0.2.1 mark 7 dport 53"):
/// a line of JSON as `cowire route get --json` prints it. Reads the kernel's state anew, which
/// takes milliseconds.
pub fn explain(question: &str) -> Result<String, Error> {
    let question = c_string("question", question.as_bytes())?;
    let mut room = vec![0u8; 4096];
    loop {
        // SAFETY: it writes no more than the room's size.
        let length =
            unsafe { sys::cowire_explain(question.as_ptr(), room.as_mut_ptr().cast(), room.len()) };
        if length < 0 {
            return Err(Error::last(length));
        }
        let length = length as usize;
        if length < room.len() {
            room.truncate(length);
            return Ok(String::from_utf8_lossy(&room).into_owned());
        }
        room.resize(length + 1, 0); // The answer may be another by then, and longer: once more.
    }
}
