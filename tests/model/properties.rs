//! What must hold in every step: of every session, server and client alike, and of the registry.

use electric_satellite::{
    session::CallError,
    wire::{
        Message, Method, Reply, Version,
        proto::{SatRpcResponse, sat_rpc_response::Result as Outcome},
    },
};

use crate::{
    common::{AUTH_TIMEOUT, Seen},
    ledger::{Event, PeerCall, Step, Taken},
    places::{Action, Seen as Person, Turn, View, Where},
    registry::{DuplicatePolicy, Eviction},
};

/// A property of a session, by its name.
type OfASession = (&'static str, fn(&Step) -> bool);

/// A property of the registry, by its name.
type OfTheRegistry = (&'static str, fn(&Turn) -> bool);

pub(crate) const NOTHING_BEFORE_VERIFIED: &str = "no handler input before a Verified";
pub(crate) const IDENTITY_STAYS: &str = "identity, once set, never changes";
pub(crate) const ONE_VERDICT: &str = "one verdict is out at a time, and nothing is taken meanwhile";
pub(crate) const QUESTIONS_ONCE: &str = "every question is answered or refused exactly once";
pub(crate) const CALLS_ONCE: &str = "every call is answered or failed exactly once";
pub(crate) const ENDS: &str = "every connection ends";
pub(crate) const SILENT_AFTER_CLOSE: &str = "no output after close";
pub(crate) const DEADLINES_FIRE: &str = "deadlines always fire, and never early";
pub(crate) const UNDECIDED_HAS_DEADLINE: &str = "what is undecided has a deadline, which stays";
pub(crate) const PLACE_WITH_CLIENT: &str = "the place is held exactly while the client is in";
pub(crate) const STREAM_IN_ORDER: &str = "the stream is sent only while it is started";
pub(crate) const WITHIN_VERSION: &str = "nothing is sent that the peer's version does not have";
pub(crate) const REFUSED_CHANGES_NOTHING: &str = "what is not taken changes nothing";

pub(crate) const OF_A_SESSION: &[OfASession] = &[
    (NOTHING_BEFORE_VERIFIED, nothing_before_verified),
    (IDENTITY_STAYS, identity_stays),
    (ONE_VERDICT, one_verdict),
    (QUESTIONS_ONCE, questions_once),
    (CALLS_ONCE, calls_once),
    (ENDS, ends),
    (SILENT_AFTER_CLOSE, silent_after_close),
    (DEADLINES_FIRE, deadlines_fire),
    (UNDECIDED_HAS_DEADLINE, undecided_has_deadline),
    (PLACE_WITH_CLIENT, place_with_client),
    (STREAM_IN_ORDER, stream_in_order),
    (WITHIN_VERSION, within_version),
    (REFUSED_CHANGES_NOTHING, refused_changes_nothing),
];

pub(crate) const ONE_OWNER: &str = "exactly one owner per client id";
pub(crate) const FREE_WHEN_LEFT: &str =
    "a place is taken as long as somebody has it, and no longer";
pub(crate) const FREE_IS_TAKEN: &str = "a free place is taken at once";
pub(crate) const NO_OTHER_USER: &str = "nobody is evicted for another user";
pub(crate) const ANSWER_KEEPS: &str = "who answers keeps the place";
pub(crate) const REFUSED_IF_TAKEN: &str = "who is refused finds the place taken by another";
pub(crate) const WAITS_END: &str = "every wait ends, and is for nobody twice";
pub(crate) const POLICY: &str = "who waits or is evicted is so by the policy";

pub(crate) const OF_THE_REGISTRY: &[OfTheRegistry] = &[
    (ONE_OWNER, one_owner),
    (FREE_WHEN_LEFT, free_when_left),
    (FREE_IS_TAKEN, free_is_taken),
    (REFUSED_IF_TAKEN, refused_if_taken),
    (NO_OTHER_USER, no_other_user),
    (ANSWER_KEEPS, answer_keeps),
    (WAITS_END, waits_end),
    (POLICY, policy),
];

// ---- Sessions ----

/// Who is told to be there was vouched for, and nothing reaches the application before.
fn nothing_before_verified(step: &Step) -> bool {
    let vouched = step.after.vouched.as_ref();
    let mut introduced = step.before.introduced;
    step.seen.iter().all(|seen| match seen {
        Seen::Authenticated(name) => {
            introduced = true;
            vouched == Some(name)
        }
        Seen::Got(_) | Seen::Called(_) | Seen::Answered(..) => introduced,
        _ => true,
    }) && (step.look.identity.is_none() || vouched.is_some())
}

/// It is told once, is the one that was vouched for first, and is there until the end.
fn identity_stays(step: &Step) -> bool {
    let told = count(step, |seen| matches!(seen, Seen::Authenticated(_)));
    let known = step.looked.identity.as_ref();
    told + usize::from(step.before.introduced) <= 1
        && (known.is_none() || step.after.ended || step.look.identity.as_ref() == known)
        && (step.look.identity.is_none() || step.look.identity == step.after.vouched)
}

/// And a frame that comes all the same is given back.
fn one_verdict(step: &Step) -> bool {
    let asked = count(step, |seen| matches!(seen, Seen::Asked { .. }));
    let undecided = step.before.asked && !step.before.ended;
    let frame = matches!(step.event, Event::Frame { .. });
    asked <= usize::from(!step.before.asked)
        && !(step.after.asked && !step.after.ended && step.look.wants_input)
        && !(undecided && frame && step.taken == Taken::Yes)
}

/// A response answers a call that waits for one. A call that arrives is answered, asked about, or
/// the end; what the application or the authenticator answers is sent; and nothing else is answered,
/// but with the last word.
fn questions_once(step: &Step) -> bool {
    let mut waiting = step.before.waiting.clone();
    let arrived = match step.event {
        Event::Frame { call: Some(call), .. } if step.taken == Taken::Yes => Some(call),
        _ => None,
    };
    waiting.extend(arrived.cloned());
    for response in responses(step) {
        let answers = PeerCall(response.method.clone(), response.request_id);
        let Some(index) = waiting.iter().position(|call| *call == answers) else { return false };
        waiting.remove(index);
    }
    let asked = count(step, |seen| matches!(seen, Seen::Called(_) | Seen::Asked { .. }));
    let responded = responses(step).count();
    let over = step.after.ended;
    match step.event {
        Event::Frame { .. } if arrived.is_some() => over && asked == 0 || asked + responded == 1,
        Event::Answer(_) if step.taken == Taken::Yes => asked == 0 && (over || responded == 1),
        Event::Verdict(_) if step.before.asked => asked == 0 && (over || responded == 1),
        _ => asked == 0 && (over || responded == 0),
    }
}

/// An outcome is that of a call that waits for one. An answer is the outcome, and so is the end.
fn calls_once(step: &Step) -> bool {
    let mut open = step.before.calls.clone();
    match step.event {
        Event::Call(call) => open.push(*call),
        Event::Forget(call) => open.retain(|other| other != call),
        _ => {}
    }
    let mut answered = vec![];
    for seen in step.seen {
        match seen {
            Seen::Answered(call, outcome) => {
                let Some(index) = open.iter().position(|other| other == call) else {
                    return false;
                };
                open.remove(index);
                if !matches!(outcome, Err(CallError::Ended)) {
                    answered.push(*call);
                }
            }
            Seen::End(_) if !open.is_empty() => return false,
            _ => {}
        }
    }
    let expected = match step.event {
        Event::Frame { answers, .. } if step.taken == Taken::Yes => *answers,
        _ => None,
    };
    answered == Vec::from_iter(expected)
}

/// At once when the peer is gone, and when the driver wants it; and only once.
fn ends(step: &Step) -> bool {
    let ends = count(step, |seen| matches!(seen, Seen::End(_)));
    let must = matches!(step.event, Event::Ender) && !step.before.ended;
    ends <= 1 && (!must || ends == 1)
}

/// Nothing comes after the end, and nothing is taken or waited for.
fn silent_after_close(step: &Step) -> bool {
    let nothing = step.before.ended && step.seen.is_empty();
    let is_last = matches!(step.seen, [.., Seen::End(_)])
        && count(step, |seen| matches!(seen, Seen::End(_))) == 1;
    let look = step.look;
    !step.after.ended
        || ((nothing || is_last && !step.before.ended)
            && !look.wants_input
            && look.deadline.is_none()
            && look.identity.is_none())
}

fn deadlines_fire(step: &Step) -> bool {
    let Event::Timeout { due } = step.event else { return true };
    match *due && step.looked.deadline.is_some() {
        true => step.after.ended,
        false => step.seen.is_empty() && step.look == step.looked,
    }
}

/// Before the handshake is over it is the time that authentication may take. Later there may be
/// limits; where a verdict is out there is one.
fn undecided_has_deadline(step: &Step) -> bool {
    match (step.after.ended, step.after.introduced, step.after.asked) {
        (true, ..) => true,
        (_, false, _) => step.look.deadline == Some(AUTH_TIMEOUT),
        (_, true, true) => step.look.deadline.is_some(),
        (_, true, false) => true,
    }
}

fn place_with_client(step: &Step) -> bool {
    step.look.has_place == step.look.identity.is_some()
}

/// It is started by the positive answer to `startReplication`, and stopped by that to
/// `stopReplication`. Only an acknowledgement belongs to the other stream.
fn stream_in_order(step: &Step) -> bool {
    sent(step).all(|message| match message {
        Message::Error(_) | Message::Request(_) | Message::Response(_) | Message::OpLogAck(_) => {
            true
        }
        _ => step.before.streaming,
    })
}

fn within_version(step: &Step) -> bool {
    sent(step).all(|message| {
        let window = match message {
            Message::Response(SatRpcResponse { result: Some(Outcome::Message(_)), .. }) => {
                window(message)
            }
            _ => None,
        };
        message.since() <= step.version && (window.is_none() || step.version >= Version::V0_10)
    })
}

/// The window that an answer to `startReplication` announces.
fn window(message: &Message) -> Option<u32> {
    let Message::Response(response) = message else { return None };
    if response.method != Method::StartReplication.as_str() {
        return None;
    }
    match Reply::decode(Method::StartReplication, response.clone()) {
        Ok(Reply::StartReplication(start)) => start.unacked_window_size,
        _ => None,
    }
}

fn refused_changes_nothing(step: &Step) -> bool {
    step.taken == Taken::Yes || (step.seen.is_empty() && step.unchanged && step.look == step.looked)
}

fn sent<'a>(step: &Step<'a>) -> impl Iterator<Item = &'a Message> + use<'a> {
    step.seen.iter().filter_map(|seen| match seen {
        Seen::Sent(message) => Some(message),
        _ => None,
    })
}

fn responses<'a>(step: &Step<'a>) -> impl Iterator<Item = &'a SatRpcResponse> + use<'a> {
    sent(step).filter_map(|message| match message {
        Message::Response(response) => Some(response),
        _ => None,
    })
}

fn count(step: &Step, is_it: impl Fn(&Seen) -> bool) -> usize {
    step.seen.iter().filter(|seen| is_it(seen)).count()
}

// ---- The registry ----

/// Whoever is inside and was not told to leave has the place, so there are never two of them, nor a
/// place that is free beside them.
fn one_owner(turn: &Turn) -> bool {
    let View { people, taken, owner } = turn.after;
    let mut inside = (0..people.len())
        .filter(|it| people[*it].place == Where::Inside && people[*it].evicted.is_none());
    *taken <= 1 && inside.all(|it| *owner == Some(it))
}

/// Somebody who takes the place over has it while it waits for the other to leave.
fn free_when_left(turn: &Turn) -> bool {
    let View { people, owner, .. } = turn.after;
    owner.is_none_or(|it| matches!(people[it].place, Where::Inside | Where::Waiting(_)))
}

fn free_is_taken(turn: &Turn) -> bool {
    let (Action::Enters(it) | Action::Runs(it)) = turn.action else { return true };
    turn.before.taken > 0 || turn.after.people[it].place == Where::Inside
}

/// Who is told to leave in this step, and by whom.
fn evicted<'a>(turn: &'a Turn) -> impl Iterator<Item = (&'a Person, &'a Person, Eviction)> {
    let by = match turn.action {
        Action::Enters(it) | Action::Runs(it) => Some(it),
        _ => None,
    };
    let (before, after) = (&turn.before.people, &turn.after.people);
    before.iter().zip(after).filter_map(move |(was, is)| match (was.evicted, is.evicted) {
        (None, Some(eviction)) => Some((is, &before[by?], eviction)),
        _ => None,
    })
}

fn no_other_user(turn: &Turn) -> bool {
    evicted(turn).all(|(it, by, _)| it.user == by.user)
}

/// And who does not, by the end of the wait of a newcomer, does not.
fn answer_keeps(turn: &Turn) -> bool {
    evicted(turn).all(|(_, by, eviction)| match (eviction, by.place) {
        (Eviction::Silent, Where::Waiting(wait)) => wait.left == 0 && !wait.answered,
        (Eviction::Silent, _) => false,
        (Eviction::Replaced, _) => true,
    })
}

/// After the whole wait, if there is one.
fn refused_if_taken(turn: &Turn) -> bool {
    let (Action::Enters(it) | Action::Runs(it)) = turn.action else { return true };
    if turn.after.people[it].place != Where::Refused {
        return true;
    }
    let waited = match turn.before.people[it].place {
        Where::Waiting(wait) => wait.left == 0,
        _ => turn.policy == DuplicatePolicy::Refuse,
    };
    waited && turn.after.owner.is_some_and(|owner| owner != it)
}

/// A waker is called when the time is over, and when the incumbent has left; who runs then has an
/// answer, or waits for somebody else.
fn waits_end(turn: &Turn) -> bool {
    let people = &turn.after.people;
    let woken = people.iter().all(|it| match it.place {
        Where::Waiting(wait) => {
            let has_left = matches!(people[wait.incumbent].place, Where::Gone | Where::Refused);
            wait.woken || (wait.left > 0 && !has_left)
        }
        _ => true,
    });
    let moves_on = match turn.action {
        Action::Runs(it) => match (turn.before.people[it].place, people[it].place) {
            (Where::Waiting(one), Where::Waiting(next)) => one.incumbent != next.incumbent,
            _ => true,
        },
        _ => true,
    };
    woken && moves_on
}

fn policy(turn: &Turn) -> bool {
    use DuplicatePolicy::{Refuse, Takeover, Wait};
    let waits = turn.after.people.iter().any(|it| matches!(it.place, Where::Waiting(_)));
    let (policy, is) = (turn.policy, |eviction: Eviction| match eviction {
        Eviction::Silent => Wait,
        Eviction::Replaced => Takeover,
    });
    !(policy == Refuse && waits) && evicted(turn).all(|(_, _, eviction)| is(eviction) == policy)
}
