// SPDX-License-Identifier: Apache-2.0
//! Datagrams that are written where the NIC reads them.
use crate::{
    address::{to_c, CHUNK, NOWHERE},
    error::Error,
    sender::{DatagramOptions, Sender},
};
use cowire_sys as sys;
use std::{fmt, io, net::SocketAddr, ptr, slice};

/// A datagram to be written in place: it grows by [`io::Write`], or is written into
/// [`Frame::buffer`] and given its length. Dropped, it goes back unsent.
pub struct Frame {
    raw: sys::cowire_frame,
    sender: Sender,
}
// SAFETY: cowire.h: a frame is used by one thread at a time, any thread; and to write, or to give
// it back, takes a `&mut` or the frame.
unsafe impl Send for Frame {}
unsafe impl Sync for Frame {}

/// Not all were reached. The frame is there for a retry with the rest, or to be dropped.
pub struct SubmitError {
    /// The datagram.
    pub frame: Frame,
    /// How many were reached: the first ones.
    pub accepted: usize,
    /// Why not the next one; [`Error::is_would_block`]: no room now.
    pub error: Error,
}

impl Frame {
    pub(crate) fn acquire(sender: &Sender) -> Result<Self, Error> {
        let mut raw =
            sys::cowire_frame { data: ptr::null_mut(), capacity: 0, length: 0, opaque: [0; 6] };
        // SAFETY: it fills the struct.
        match unsafe { sys::cowire_frame_acquire(sender.raw(), &mut raw) } {
            0 => Ok(Frame { raw: sys::cowire_frame { length: 0, ..raw }, sender: sender.clone() }),
            failed => Err(Error::last(failed as isize)),
        }
    }

    /// All of its room, with whatever was there before.
    pub fn buffer(&mut self) -> &mut [u8] {
        // SAFETY: this much memory is ours until the frame is submitted or released.
        unsafe { slice::from_raw_parts_mut(self.raw.data.cast(), self.raw.capacity) }
    }

    /// How much of the buffer is the datagram.
    ///
    /// # Panics
    /// If it is more than the buffer has.
    pub fn set_len(&mut self, length: usize) {
        assert!(length <= self.raw.capacity, "{length} bytes in a frame of {}", self.raw.capacity);
        self.raw.length = length;
    }

    /// Submits it to all of these addresses. More than 64 of them cost an allocation.
    pub fn submit(self, to: &[SocketAddr]) -> Result<(), SubmitError> {
        self.submit_raw(to, ptr::null())
    }

    /// The same with choices of these datagrams' own.
    pub fn submit_with(
        self,
        to: &[SocketAddr],
        options: &DatagramOptions,
    ) -> Result<(), SubmitError> {
        self.submit_raw(to, &options.raw())
    }

    fn submit_raw(
        mut self,
        to: &[SocketAddr],
        options: *const sys::cowire_datagram_options,
    ) -> Result<(), SubmitError> {
        let mut few = [NOWHERE; CHUNK];
        let many: Vec<_>;
        let all = if let Some(few) = few.get_mut(..to.len()) {
            for (into, address) in few.iter_mut().zip(to) {
                *into = to_c(*address);
            }
            few
        } else {
            many = to.iter().map(|address| to_c(*address)).collect();
            &many[..]
        };
        let mut accepted = 0;
        while accepted < all.len() {
            let rest = &all[accepted..];
            // SAFETY: `rest` lives. The call that reaches its end takes the frame away, and dropping
            // one that is gone does nothing.
            match unsafe {
                let (to, count) = (rest.as_ptr(), rest.len());
                sys::cowire_frame_submit_with(self.sender.raw(), &mut self.raw, to, count, options)
            } {
                n if n >= 0 => accepted += n as usize,
                n => return Err(SubmitError { frame: self, accepted, error: Error::last(n) }),
            }
        }
        Ok(())
    }
}

impl AsRef<[u8]> for Frame {
    /// The datagram so far.
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as for buffer(); the length is within it.
        unsafe { slice::from_raw_parts(self.raw.data.cast(), self.raw.length) }
    }
}

impl io::Write for Frame {
    /// Takes what there is room for.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let from = self.raw.length;
        let count = bytes.len().min(self.raw.capacity - from);
        self.buffer()[from..from + count].copy_from_slice(&bytes[..count]);
        self.raw.length += count;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: it is ours, or gone.
        unsafe { sys::cowire_frame_release(&mut self.raw) }
    }
}

impl fmt::Debug for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubmitError({} accepted, {:?})", self.accepted, self.error)
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} accepted, then: {}", self.accepted, self.error)
    }
}

impl std::error::Error for SubmitError {}
