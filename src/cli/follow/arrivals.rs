//! What arrives, as lines: for people, or as JSON objects.

use std::{
    collections::HashMap,
    fmt::{self, Display},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use electric_satellite::wire::{
    Message,
    proto::{
        SatOpBegin, SatOpDelete, SatOpInsert, SatOpLog, SatOpMigrate, SatOpRow, SatOpUpdate,
        SatRelation, SatTransOp, sat_trans_op::Op,
    },
};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Something that is printed as one line.
pub(super) struct Line {
    kind: &'static str,
    fields: Vec<(&'static str, Field)>,
}

/// A part of a line.
pub(super) enum Field {
    Nothing,
    Number(u64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Columns(Vec<Column>),
    Row(Vec<(String, Value)>),
}

#[derive(Serialize)]
pub(super) struct Column {
    name: String,
    r#type: String,
    primary_key: bool,
    nullable: bool,
}

/// A value of a row; nothing for null.
pub(super) struct Value(Option<Bytes>);

impl Line {
    pub(super) fn new<const N: usize>(
        kind: &'static str,
        fields: [(&'static str, Field); N],
    ) -> Line {
        Line { kind, fields: fields.into() }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("it can be written as JSON")
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Field {
        Field::Text(text.to_owned())
    }
}

impl From<&String> for Field {
    fn from(text: &String) -> Field {
        Field::Text(text.clone())
    }
}

impl From<&Bytes> for Field {
    /// A position, which is a number in ASCII.
    fn from(position: &Bytes) -> Field {
        Field::Text(String::from_utf8_lossy(position).into_owned())
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Field {
        Field::Number(number)
    }
}

impl<F: Into<Field>> From<Option<F>> for Field {
    fn from(field: Option<F>) -> Field {
        field.map_or(Field::Nothing, F::into)
    }
}

/// Knows the relations of one connection.
#[derive(Default)]
pub(super) struct Arrivals {
    relations: HashMap<u32, Relation>,
}

#[derive(Default)]
struct Relation {
    table: String,
    columns: Vec<String>,
}

impl Arrivals {
    /// A message, in lines.
    pub(super) fn lines(&mut self, message: &Message) -> Vec<Line> {
        let line = match message {
            Message::OpLog(SatOpLog { ops }) => {
                let ops = ops.iter().filter_map(|SatTransOp { op }| op.as_ref());
                return ops.flat_map(|op| self.operation(op)).collect();
            }
            Message::Relation(relation) => self.relation(relation),
            Message::SubsDataBegin(begin) => Line::new(
                "subscription_begin",
                [
                    ("subscription", (&begin.subscription_id).into()),
                    ("position", (&begin.lsn).into()),
                ],
            ),
            Message::SubsDataEnd(_) => Line::new("subscription_end", []),
            Message::SubsDataError(error) => Line::new(
                "subscription_error",
                [
                    ("subscription", (&error.subscription_id).into()),
                    ("message", (&error.message).into()),
                ],
            ),
            Message::ShapeDataBegin(begin) => {
                Line::new("shape_begin", [("shape", (&begin.request_id).into())])
            }
            Message::ShapeDataEnd(_) => Line::new("shape_end", []),
            Message::UnsubsDataBegin(begin) => Line::new(
                "unsubscription_begin",
                [
                    ("subscriptions", Field::Texts(begin.subscription_ids.clone())),
                    ("position", (&begin.lsn).into()),
                ],
            ),
            Message::UnsubsDataEnd(_) => Line::new("unsubscription_end", []),
            Message::Error(error) => Line::new(
                "error",
                [
                    ("code", error.error_type().as_str_name().into()),
                    ("message", error.text().as_deref().into()),
                ],
            ),
            // No messages of a server's stream.
            Message::Request(_) | Message::Response(_) | Message::OpLogAck(_) => return vec![],
        };
        vec![line]
    }

    fn relation(&mut self, relation: &SatRelation) -> Line {
        let table = relation.table_name.clone();
        let columns = relation.columns.iter().map(|column| column.name.clone()).collect();
        self.relations.insert(relation.relation_id, Relation { table, columns });
        let columns = relation.columns.iter().map(|column| Column {
            name: column.name.clone(),
            r#type: column.r#type.clone(),
            primary_key: column.primary_key,
            nullable: column.is_nullable,
        });
        Line::new(
            "relation",
            [
                ("table", (&relation.table_name).into()),
                ("schema", (&relation.schema_name).into()),
                ("columns", Field::Columns(columns.collect())),
            ],
        )
    }

    fn operation(&self, op: &Op) -> Vec<Line> {
        let line = match op {
            Op::Begin(begin) => begin_line(begin),
            Op::Commit(_) => Line::new("commit", []),
            Op::Insert(SatOpInsert { relation_id, row_data, .. }) => {
                self.change("insert", *relation_id, [("row", row_data)])
            }
            Op::Update(SatOpUpdate { relation_id, row_data, old_row_data, .. }) => {
                self.change("update", *relation_id, [("row", row_data), ("old_row", old_row_data)])
            }
            Op::Delete(SatOpDelete { relation_id, old_row_data, .. }) => {
                self.change("delete", *relation_id, [("old_row", old_row_data)])
            }
            Op::Compensation(op) => self.keyed("compensation", op.relation_id, &op.pk_data),
            Op::Gone(op) => self.keyed("gone", op.relation_id, &op.pk_data),
            Op::Migrate(migrate) => migration(migrate),
            Op::AdditionalBegin(begin) => {
                Line::new("additional_begin", [("ref", begin.r#ref.into())])
            }
            Op::AdditionalCommit(commit) => {
                Line::new("additional_commit", [("ref", commit.r#ref.into())])
            }
        };
        vec![line]
    }

    fn change<const N: usize>(
        &self,
        kind: &'static str,
        relation_id: u32,
        rows: [(&'static str, &Option<SatOpRow>); N],
    ) -> Line {
        let relation = self.relations.get(&relation_id);
        let table = ("table", relation.map(|relation| &relation.table).into());
        let row = |row: &Option<SatOpRow>| match (relation, row) {
            (Some(relation), Some(row)) => relation.row(row),
            _ => Field::Nothing,
        };
        let rows = rows.map(|(name, data)| (name, row(data)));
        Line { kind, fields: std::iter::once(table).chain(rows).collect() }
    }

    /// Of such a row, only the key has values.
    fn keyed(&self, kind: &'static str, relation_id: u32, key: &Option<SatOpRow>) -> Line {
        let mut line = self.change(kind, relation_id, [("key", key)]);
        if let Some((_, Field::Row(values))) = line.fields.last_mut() {
            values.retain(|(_, Value(value))| value.is_some());
        }
        line
    }
}

impl Relation {
    /// A row, column by column. The session has seen that it fits.
    fn row(&self, row: &SatOpRow) -> Field {
        let Ok(row) = row.read(self.columns.len()) else { return Field::Nothing };
        let values = row.iter().map(|value| Value(value.cloned()));
        Field::Row(self.columns.iter().cloned().zip(values).collect())
    }
}

fn begin_line(begin: &SatOpBegin) -> Line {
    Line::new(
        "begin",
        [
            ("position", (&begin.lsn).into()),
            ("transaction", begin.transaction_id.into()),
            ("origin", begin.origin.as_ref().into()),
            ("time_ms", begin.commit_timestamp.into()),
            ("is_migration", Field::Flag(begin.is_migration)),
        ],
    )
}

fn migration(migrate: &SatOpMigrate) -> Line {
    let statements = migrate.stmts.iter().map(|statement| statement.sql.clone()).collect();
    Line::new(
        "migration",
        [("version", (&migrate.version).into()), ("statements", Field::Texts(statements))],
    )
}

// ---- As JSON ----

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(None)?;
        object.serialize_entry("type", self.kind)?;
        for (name, field) in &self.fields {
            object.serialize_entry(name, field)?;
        }
        object.end()
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Field::Nothing => to.serialize_none(),
            Field::Number(number) => number.serialize(to),
            Field::Flag(flag) => flag.serialize(to),
            Field::Text(text) => text.serialize(to),
            Field::Texts(texts) => texts.serialize(to),
            Field::Columns(columns) => columns.serialize(to),
            Field::Row(row) => to.collect_map(row.iter().map(|(column, value)| (column, value))),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_deref().map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => to.serialize_none(),
            Some((_, Ok(text))) => text.serialize(to),
            Some((bytes, Err(_))) => to.collect_map([("base64", STANDARD.encode(bytes))]),
        }
    }
}

// ---- For people ----

impl Display for Line {
    /// Nothing that arrives can move the cursor: it is quoted, as in Rust.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields.iter().filter(|(_, field)| !matches!(field, Field::Nothing));
        let width = if fields.clone().next().is_some() { 14 } else { 0 };
        write!(f, "{:<width$}", self.kind)?;
        for (name, field) in fields {
            match (*name, field) {
                ("table", Field::Text(table)) => write!(f, " {}", table.escape_debug())?,
                ("row" | "columns", field) => write!(f, " {field}")?,
                (name, field) => write!(f, " {name}={field}")?,
            }
        }
        Ok(())
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Nothing => f.write_str("null"),
            Field::Number(number) => number.fmt(f),
            Field::Flag(flag) => flag.fmt(f),
            Field::Text(text) => write!(f, "{text:?}"),
            Field::Texts(texts) => write!(f, "{texts:?}"),
            Field::Columns(columns) => list(f, columns, |f, column| {
                write!(f, "{} {}", column.name.escape_debug(), column.r#type.escape_debug())
            }),
            Field::Row(row) => {
                list(f, row, |f, (column, value)| write!(f, "{}={value}", column.escape_debug()))
            }
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref().map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => f.write_str("null"),
            Some((_, Ok(text))) => write!(f, "{text:?}"),
            Some((bytes, Err(_))) => write!(f, "base64:{}", STANDARD.encode(bytes)),
        }
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut item: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_str("(")?;
    for (index, it) in items.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        item(f, it)?;
    }
    f.write_str(")")
}
