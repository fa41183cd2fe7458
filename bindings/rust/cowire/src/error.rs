// SPDX-License-Identifier: Apache-2.0
//! What can go wrong.
use cowire_sys as sys;
use std::{ffi::CStr, fmt, io};

/// A call that failed: an errno, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    number: i32,
    text: String,
}

impl Error {
    /// Of the call that this thread made last. `result`: its negative errno.
    pub(crate) fn last(result: isize) -> Self {
        // SAFETY: a string that lasts until this thread's next failing call.
        let text = unsafe { CStr::from_ptr(sys::cowire_text()) };
        Error { number: -result as i32, text: text.to_string_lossy().into_owned() }
    }
    pub(crate) fn invalid(text: String) -> Self {
        Error { number: sys::EINVAL, text }
    }

    /// A positive errno: EMSGSIZE (longer than [`crate::Sender::payload_max`]), EAFNOSUPPORT (no
    /// source address of that family), ESHUTDOWN, ECHILD (in a child of fork()), EINVAL, or what
    /// the kernel said.
    pub fn raw_os_error(&self) -> i32 {
        self.number
    }
    /// There was no room, or nothing to read.
    pub fn is_would_block(&self) -> bool {
        self.number == sys::EAGAIN
    }
    /// Not with this kind of sender.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.number == sys::EOPNOTSUPP
    }
    /// These handles will never send again: the transmitter has ended, or this is a child of fork().
    pub fn is_disconnected(&self) -> bool {
        self.number == sys::ESHUTDOWN || self.number == sys::ECHILD
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            return io::Error::from_raw_os_error(self.number).fmt(f);
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(io::Error::from_raw_os_error(error.number).kind(), error)
    }
}

/// Why a packet was not accepted; it comes back.
#[derive(Clone, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// No room now. The same call may succeed later.
    Full(T),
    /// The same call would fail again.
    Refused {
        /// What was to be sent.
        packet: T,
        /// Why it was not.
        error: Error,
    },
}

impl<T> TrySendError<T> {
    /// As [`Error::last`], whose text nobody reads where there is no room.
    pub(crate) fn last(packet: T, result: isize) -> Self {
        if result == -(sys::EAGAIN as isize) {
            TrySendError::Full(packet)
        } else {
            TrySendError::Refused { packet, error: Error::last(result) }
        }
    }
    /// The packet.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(packet) | TrySendError::Refused { packet, .. } => packet,
        }
    }
    /// No room now.
    pub fn is_full(&self) -> bool {
        matches!(self, TrySendError::Full(_))
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str("Full(..)"),
            TrySendError::Refused { error, .. } => write!(f, "Refused({error:?}, ..)"),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrySendError::Full(_) => f.write_str("no room for another datagram now"),
            TrySendError::Refused { error, .. } => error.fmt(f),
        }
    }
}

impl<T> std::error::Error for TrySendError<T> {}
