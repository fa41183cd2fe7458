// SPDX-License-Identifier: Apache-2.0
//! Names and shapes of other senders, so that their call sites compile with other `use` lines.
pub mod agave;
