//! What the service sends to a client meanwhile.

use std::{mem, pin::pin};

use electric_satellite::{
    client::Resume,
    session::AuthenticatedServer,
    transport::{Event, Receiver, Sender},
    wire::{
        Message,
        proto::{SatInStartReplicationResp, SatInStopReplicationResp, SatOpLog, sat_trans_op::Op},
    },
};
use tokio::select;

use super::tally::Traffic;

/// Reads, answers the service's calls, and acknowledges.
pub(super) struct Incoming {
    sender: Sender<AuthenticatedServer>,
    receiver: Receiver<AuthenticatedServer>,
    /// What is acknowledged; nothing without.
    pub(super) resume: Option<Resume>,
    /// The service has asked for the client's stream.
    asked: bool,
    traffic: Traffic,
}

impl Incoming {
    pub(super) fn new(
        sender: Sender<AuthenticatedServer>,
        receiver: Receiver<AuthenticatedServer>,
    ) -> Incoming {
        let traffic = Traffic::default();
        Incoming { sender, receiver, resume: None, asked: false, traffic }
    }

    /// Waits for something else, and reads meanwhile.
    pub(super) async fn attend<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            let event = select! {
                biased;
                output = &mut future => return output,
                event = self.receiver.recv() => event,
            };
            match event {
                Some(event) => self.take(event).await,
                None => return future.await,
            }
        }
    }

    /// Reads until the service asks for the client's stream. Returns whether it has.
    pub(super) async fn is_asked(&mut self) -> bool {
        while !self.asked {
            match self.receiver.recv().await {
                Some(event) => self.take(event).await,
                None => break,
            }
        }
        self.asked
    }

    /// What has come since this was asked last.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        mem::take(&mut self.traffic)
    }

    async fn take(&mut self, event: Event<AuthenticatedServer>) {
        match event {
            Event::Message(message) => self.take_message(&message).await,
            Event::StartReplication(_, responder) => {
                responder.reply(SatInStartReplicationResp::default());
                self.asked = true;
            }
            Event::StopReplication(_, responder) => {
                responder.reply(SatInStopReplicationResp {});
                self.asked = false;
            }
            // Not for servers to call.
            _ => {}
        }
    }

    async fn take_message(&mut self, message: &Message) {
        self.traffic += Traffic {
            messages: 1,
            transactions: transactions(message),
            bytes: message.encoded_len() as u64,
        };
        if let Some(resume) = &mut self.resume {
            resume.stored(message);
            // If that fails, it has ended.
            let _ = self.sender.acknowledge(resume).await;
        }
    }
}

/// How many transactions end with this message.
fn transactions(message: &Message) -> u64 {
    let Message::OpLog(SatOpLog { ops }) = message else { return 0 };
    ops.iter().filter(|op| matches!(op.op, Some(Op::Commit(_)))).count() as u64
}
