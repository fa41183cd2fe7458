// SPDX-License-Identifier: Apache-2.0
//! UDP datagrams put on the wire through AF_XDP exactly as the Linux kernel would have sent them:
//! same route, same source address, same tunnel, same next hop, same bytes.
//!
//! ```no_run
//! let transmitter = cowire::Transmitter::open(&cowire::Options::default())?;
//! let sender = transmitter.sender(&cowire::SenderOptions::default())?;
//! match sender.try_send(b"hello", "192.0.2.1:9000".parse().unwrap()) {
//!     Ok(()) => {}
//!     Err(cowire::TrySendError::Full(_packet)) => {} // No room now: later, or never.
//!     Err(cowire::TrySendError::Refused { error, .. }) => return Err(error.into()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It stands on `libcowire.so.0` (`cowire.h`), and has no other dependency than the standard
//! library.
//!
//! **Threads.** All types may be used from any thread at once, and clones are the same thing again:
//! what is behind them goes when the last one does. Dropping the last handle of a [`Transmitter`]
//! waits up to a second for the datagrams on the way.
//!
//! **Nothing waits** but opening, [`explain`], that last drop, and what has a `timeout`.
//!
//! **Fork.** In a child the parent's handles fail with ECHILD.
#![warn(missing_docs)]

mod address;
pub mod compat;
mod error;
mod frame;
mod sender;
mod transmitter;

pub use error::{Error, TrySendError};
pub use frame::{Frame, SubmitError};
pub use sender::{DatagramOptions, SendError, Sender, SenderOptions};
pub use transmitter::{explain, version, Mode, Options, Transmitter, Warnings};
