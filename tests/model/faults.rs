//! Faults between what is real and the checker, each of which the property that names it must find.

use std::time::Duration;

use electric_satellite::{
    session::{CallError, Cause, End},
    wire::{
        Message,
        proto::{SatUnsubsDataBegin, sat_error_resp::ErrorCode},
    },
};

use crate::{
    common::{Seen, error, relation, sent, start},
    ledger::{Event, Ledger, Look, Taken},
    properties::*,
};

/// A fault of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seeded {
    /// What is pipelined behind the auth request is handed out before the verdict.
    HandsOutBeforeTheVerdict,
    /// Whoever renews becomes whoever the new token speaks for.
    FollowsTheToken,
    IntroducesAgain,
    ListensMeanwhile,
    AsksAgain,
    SwallowsAnswers,
    RepeatsAnswers,
    SwallowsReplies,
    RepeatsReplies,
    LosesCallsAtTheEnd,
    OverlooksTheEnd,
    EndsTwice,
    SpeaksAfterTheEnd,
    OverlooksDeadlines,
    EndsTooEarly,
    MovesTheDeadline,
    KeepsThePlace,
    StreamsUnasked,
    SendsWhatIsNewer,
    SendsWhatItRefuses,
}

use Seeded::*;

/// The faults of a server's session, and by what each is found.
pub(crate) const OF_A_SERVER: &[(Seeded, &str)] = &[
    (HandsOutBeforeTheVerdict, NOTHING_BEFORE_VERIFIED),
    (FollowsTheToken, IDENTITY_STAYS),
    (IntroducesAgain, IDENTITY_STAYS),
    (ListensMeanwhile, ONE_VERDICT),
    (AsksAgain, ONE_VERDICT),
    (SwallowsAnswers, QUESTIONS_ONCE),
    (RepeatsAnswers, QUESTIONS_ONCE),
    (SwallowsReplies, CALLS_ONCE),
    (RepeatsReplies, CALLS_ONCE),
    (LosesCallsAtTheEnd, CALLS_ONCE),
    (OverlooksTheEnd, ENDS),
    (EndsTwice, ENDS),
    (SpeaksAfterTheEnd, SILENT_AFTER_CLOSE),
    (OverlooksDeadlines, DEADLINES_FIRE),
    (EndsTooEarly, DEADLINES_FIRE),
    (MovesTheDeadline, UNDECIDED_HAS_DEADLINE),
    (KeepsThePlace, PLACE_WITH_CLIENT),
    (StreamsUnasked, STREAM_IN_ORDER),
    (SendsWhatIsNewer, WITHIN_VERSION),
    (SendsWhatItRefuses, REFUSED_CHANGES_NOTHING),
];

/// Those that a client's session can have, too.
pub(crate) const OF_A_CLIENT: &[(Seeded, &str)] = &[
    (IntroducesAgain, IDENTITY_STAYS),
    (SwallowsAnswers, QUESTIONS_ONCE),
    (RepeatsAnswers, QUESTIONS_ONCE),
    (SwallowsReplies, CALLS_ONCE),
    (RepeatsReplies, CALLS_ONCE),
    (LosesCallsAtTheEnd, CALLS_ONCE),
    (OverlooksTheEnd, ENDS),
    (EndsTwice, ENDS),
    (SpeaksAfterTheEnd, SILENT_AFTER_CLOSE),
    (OverlooksDeadlines, DEADLINES_FIRE),
    (EndsTooEarly, DEADLINES_FIRE),
    (StreamsUnasked, STREAM_IN_ORDER),
    (SendsWhatIsNewer, WITHIN_VERSION),
    (SendsWhatItRefuses, REFUSED_CHANGES_NOTHING),
];

impl Seeded {
    /// Changes what the checker gets to see.
    pub(crate) fn distort(
        self,
        before: &Ledger,
        event: &Event,
        taken: &mut Taken,
        seen: &mut Vec<Seen>,
        look: &mut Look,
    ) {
        let undecided = before.asked && !before.ended;
        let over = before.ended || seen.iter().any(|it| matches!(it, Seen::End(_)));
        let is_in = before.introduced && !over;
        let is_call = matches!(event, Event::Frame { call: Some(_), .. });
        match self {
            HandsOutBeforeTheVerdict if undecided && !before.introduced && is_call => {
                *taken = Taken::Yes;
                seen.push(Seen::Called(start().into()));
            }
            FollowsTheToken if is_in && matches!(event, Event::Verdict(Some(_))) => {
                look.identity = Some("client-1 as user-2".into());
            }
            IntroducesAgain if is_in && matches!(event, Event::Frame { .. }) => {
                seen.extend(before.vouched.clone().map(Seen::Authenticated));
            }
            ListensMeanwhile if undecided && !over => look.wants_input = true,
            AsksAgain if undecided && *taken == Taken::Back => {
                let (client_id, token) = ("client-1".into(), "token-1".into());
                seen.push(Seen::Asked { client_id, token });
            }
            SwallowsAnswers if matches!(event, Event::Answer(_)) => seen.retain(|it| !answer(it)),
            RepeatsAnswers if matches!(event, Event::Answer(_)) => repeat(seen, answer),
            SwallowsReplies => seen.retain(|it| !replied(it)),
            RepeatsReplies => repeat(seen, replied),
            LosesCallsAtTheEnd => {
                seen.retain(|it| !matches!(it, Seen::Answered(_, Err(CallError::Ended))));
            }
            OverlooksTheEnd if matches!(event, Event::Ender) => {
                seen.retain(|it| !matches!(it, Seen::End(_)));
            }
            EndsTwice => repeat(seen, |it| matches!(it, Seen::End(_))),
            SpeaksAfterTheEnd if before.ended => seen.push(sent(error(ErrorCode::Internal))),
            OverlooksDeadlines if matches!(event, Event::Timeout { due: true }) => seen.clear(),
            EndsTooEarly if !over && matches!(event, Event::Timeout { due: false }) => {
                seen.push(Seen::End(End { close: None, cause: Cause::TooOld }));
            }
            MovesTheDeadline if before.asked => {
                look.deadline = look.deadline.map(|deadline| deadline + Duration::from_secs(1));
            }
            KeepsThePlace if over && before.introduced => look.has_place = true,
            StreamsUnasked if is_in && !before.streaming => seen.push(sent(relation(1))),
            SendsWhatIsNewer if before.streaming && !over => {
                seen.push(sent(SatUnsubsDataBegin::default()));
            }
            SendsWhatItRefuses if !over && matches!(taken, Taken::Refused(_)) => {
                seen.push(sent(relation(1)));
            }
            _ => {}
        }
    }
}

/// A response to a call of the peer.
fn answer(seen: &Seen) -> bool {
    matches!(seen, Seen::Sent(Message::Response(_)))
}

/// An answer of the peer to a call of this end.
fn replied(seen: &Seen) -> bool {
    matches!(seen, Seen::Answered(_, outcome) if *outcome != Err(CallError::Ended))
}

fn repeat(seen: &mut Vec<Seen>, is_it: impl Fn(&Seen) -> bool) {
    if let Some(index) = seen.iter().position(is_it) {
        let again = match &seen[index] {
            Seen::Sent(message) => Seen::Sent(message.clone()),
            Seen::Answered(call, outcome) => Seen::Answered(*call, outcome.clone()),
            Seen::End(end) => Seen::End(end.clone()),
            _ => return,
        };
        seen.insert(index, again);
    }
}

/// A fault of the registry, or of what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeededPlace {
    /// Who comes second looks into another table.
    TwoRegistries,
    /// A registration is never dropped.
    PlaceIsKept,
    TurnsAwayForNothing,
    TurnsAwayTooEarly,
    UsersAreMistaken,
    AnswersAreLost,
    WakersAreLost,
    /// Another policy than was wanted.
    OtherPolicy,
}

/// The faults of the registry, and by what each is found.
pub(crate) const OF_PLACES: &[(SeededPlace, &str)] = &[
    (SeededPlace::TwoRegistries, ONE_OWNER),
    (SeededPlace::PlaceIsKept, FREE_WHEN_LEFT),
    (SeededPlace::TurnsAwayForNothing, FREE_IS_TAKEN),
    (SeededPlace::TurnsAwayTooEarly, REFUSED_IF_TAKEN),
    (SeededPlace::UsersAreMistaken, NO_OTHER_USER),
    (SeededPlace::AnswersAreLost, ANSWER_KEEPS),
    (SeededPlace::WakersAreLost, WAITS_END),
    (SeededPlace::OtherPolicy, POLICY),
];
