//! Electric 0.12, as recorded from 0.12.1.

use crate::wire::Version;

use super::{Difference, Profile, electric};

pub(super) fn profile() -> Profile {
    Profile {
        name: "electric-0.12",
        about: "the original sync service, release 0.12.1, quirks included",
        version: Version::V0_12,
        differences: [wire_level()].into_iter().flatten().collect(),
    }
}

/// Upgrade, frames, keepalive, duplicates and hostile input.
fn wire_level() -> Vec<Difference> {
    const TOO_OLD: &str = "versions below 0.10 are refused: http_proto_electric_0_8";
    let older = [
        (
            "SAT-UPG-004",
            "electric.0.9",
            "Cannot connect satellite version 0.9.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-005",
            "electric.0.8",
            "Cannot connect satellite version 0.8.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-006",
            "electric.0.7",
            "Cannot connect satellite version 0.7.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
        (
            "SAT-UPG-007",
            "electric.0.6",
            "Cannot connect satellite version 0.6.0: this server requires >= 0.10.0 and <= 0.12.1",
        ),
    ];
    let older = older.into_iter().map(|(id, offer, body)| {
        Difference::script(id, TOO_OLD, electric::is_refused(offer, body))
    });
    electric::wire_level().into_iter().chain(older).collect()
}
