//! `--subscribe TABLE [--where CONDITION]`, as often as wanted.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use electric_satellite::client::Subscription;
use serde::{Deserialize, Serialize};

/// The rows of a table that are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) table: String,
    /// All of them without.
    #[serde(rename = "where")]
    pub(super) condition: Option<String>,
}

impl Shape {
    /// A subscription of its own for these rows.
    pub(super) fn subscription(&self) -> Subscription {
        let condition = self.condition.as_deref().unwrap_or_default();
        Subscription::new().shape_where(&self.table, condition)
    }
}

/// What the command line asks for, in its order.
pub(super) struct Shapes(pub(super) Vec<Shape>);

impl Args for Shapes {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        command
            .arg(option("subscribe").value_name("TABLE").help(
                "Subscribe to this table. May be given more than once",
            ))
            .arg(option("where").value_name("CONDITION").requires("subscribe").help(
                "Of the table of the --subscribe before it, only the rows for which this SQL holds, such as \"this.done = false\"",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Shapes::augment_args(command)
    }
}

impl FromArgMatches for Shapes {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Shapes, clap::Error> {
        let mut options: Vec<(usize, &str, &String)> = ["subscribe", "where"]
            .into_iter()
            .flat_map(|name| {
                let values = matches.get_many::<String>(name).unwrap_or_default();
                let indices = matches.indices_of(name).into_iter().flatten();
                indices.zip(values).map(move |(index, value)| (index, name, value))
            })
            .collect();
        options.sort_unstable();
        let mut shapes: Vec<Shape> = vec![];
        for (_, name, value) in options {
            match (name, shapes.last_mut()) {
                ("subscribe", _) => shapes.push(Shape { table: value.clone(), condition: None }),
                (_, Some(Shape { condition: condition @ None, .. })) => {
                    *condition = Some(value.clone());
                }
                _ => {
                    let message = "each --where belongs to the --subscribe before it";
                    return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
                }
            }
        }
        Ok(Shapes(shapes))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Shapes::from_arg_matches(matches)?;
        Ok(())
    }
}
