//! Keys that are exchanged, files that are read again, tokens that work once, tokens that are
//! revoked and tokens that are remembered: what is accepted before, during and after the change.
//!
//! The wall clock is given, and where time must pass it is the runtime's paused one: no test
//! sleeps. Races are explored with plain threads that do both things at once, many times over; a
//! comment at each says which orders are legal.

mod cache;
mod files;
mod keys;
mod live;
mod replay;
mod revocation;
mod support;
