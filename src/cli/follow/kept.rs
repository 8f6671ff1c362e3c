//! What is kept of one connection for the next one, in a file if there is one to keep it in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use electric_satellite::{client::Resume, session::ClientId};
use serde::{Deserialize, Serialize};

use crate::cli::shapes::Shape;

/// Who the client is, how far it has come, and what it wants.
pub(super) struct Kept {
    pub(super) client_id: ClientId,
    pub(super) resume: Resume,
    pub(super) wanted: Vec<Wanted>,
    pub(super) file: Option<PathBuf>,
    /// What the file holds.
    written: String,
}

/// Rows that are wanted, and the subscription by which they were asked for last.
#[derive(Serialize, Deserialize)]
pub(super) struct Wanted {
    id: Option<String>,
    #[serde(flatten)]
    shape: Shape,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Contents {
    client_id: String,
    resume: Resume,
    subscriptions: Vec<Wanted>,
}

impl Kept {
    /// Nothing yet.
    pub(super) fn new() -> Kept {
        Kept {
            client_id: ClientId::random(),
            resume: Resume::default(),
            wanted: vec![],
            file: None,
            written: String::new(),
        }
    }

    /// What the file holds, which need not be there yet.
    pub(super) fn from_file(file: &Path) -> Result<Kept, String> {
        let wrong = |reason: String| format!("{}: {reason}", file.display());
        let mut kept = Kept { file: Some(file.to_owned()), ..Kept::new() };
        let written = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            written => written.map_err(|error| wrong(error.to_string()))?,
        };
        let contents: Contents =
            serde_json::from_str(&written).map_err(|error| wrong(error.to_string()))?;
        kept.client_id =
            ClientId::new(contents.client_id).map_err(|error| wrong(error.to_string()))?;
        kept.resume = contents.resume;
        kept.wanted = contents.subscriptions;
        kept.written = written;
        Ok(kept)
    }

    /// Takes note of what else is wanted.
    pub(super) fn want(&mut self, shapes: &[Shape]) {
        for shape in shapes {
            if !self.wanted.iter().any(|wanted| wanted.shape == *shape) {
                self.wanted.push(Wanted { id: None, shape: shape.clone() });
            }
        }
    }

    /// What is wanted and has not come, each with the place for the id of a subscription.
    pub(super) fn missing(&mut self) -> impl Iterator<Item = (&Shape, &mut Option<String>)> {
        let held = &self.resume.subscriptions;
        let missing =
            |wanted: &&mut Wanted| !wanted.id.as_ref().is_some_and(|id| held.contains(id));
        self.wanted.iter_mut().filter(missing).map(|Wanted { shape, id }| (&*shape, id))
    }

    /// Writes it to the file, as a whole or not at all, if there is something new.
    pub(super) fn save(&mut self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let contents = Contents {
            client_id: self.client_id.as_str().to_owned(),
            resume: self.resume.clone(),
            subscriptions: std::mem::take(&mut self.wanted),
        };
        let text = serde_json::to_string(&contents).expect("it can be written as JSON");
        self.wanted = contents.subscriptions;
        if text == self.written {
            return Ok(());
        }
        let mut beside = file.clone().into_os_string();
        beside.push(".new");
        fs::write(&beside, &text)
            .and_then(|()| fs::rename(&beside, file))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        self.written = text;
        Ok(())
    }
}
