//! Electric 0.7, as recorded from 0.7.1.

use crate::wire::Version;

use super::{Difference, Profile, electric};

pub(super) fn profile() -> Profile {
    Profile {
        name: "electric-0.7",
        about: "the original sync service, release 0.7.1, quirks included",
        version: Version::new(0, 7),
        differences: [wire_level()].into_iter().flatten().collect(),
    }
}

/// Upgrade, frames, keepalive, duplicates and hostile input.
fn wire_level() -> Vec<Difference> {
    const TOO_NEW: &str = "versions above 0.7 are refused: http_proto_electric_0_8, \
                           http_proto_electric_0_13";
    let newer = [
        (
            "SAT-UPG-001",
            "electric.0.12",
            "Cannot connect satellite version 0.12.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-002",
            "electric.0.11",
            "Cannot connect satellite version 0.11.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-003",
            "electric.0.10",
            "Cannot connect satellite version 0.10.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-004",
            "electric.0.9",
            "Cannot connect satellite version 0.9.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
        (
            "SAT-UPG-005",
            "electric.0.8",
            "Cannot connect satellite version 0.8.0: this server requires >= 0.6.0 and <= 0.7.1",
        ),
    ];
    let newer = newer.into_iter().map(|(id, offer, body)| {
        Difference::script(id, TOO_NEW, electric::is_refused(offer, body))
    });
    electric::wire_level().into_iter().chain(newer).collect()
}
