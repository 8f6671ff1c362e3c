//! Pins the schema: every message, field, enum value, reserved number and method of
//! `proto/satellite.proto` against the tables below. Shipped peers depend on each of them.

use std::{collections::BTreeSet, ops::RangeInclusive};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    MethodDescriptorProto, field_descriptor_proto::Label,
};

const PACKAGE: &str = "Electric.Satellite";

/// Message and its fields: number, name, label if any, type.
const MESSAGES: &[(&str, &str)] = &[
    ("SatRpcRequest", "1 method string, 2 request_id uint32, 3 message bytes"),
    (
        "SatRpcResponse",
        "1 method string, 2 request_id uint32, 3 message oneof(result) bytes, \
         4 error oneof(result) SatErrorResp",
    ),
    (
        "SatErrorResp",
        "1 error_type SatErrorResp.ErrorCode, 2 lsn optional bytes, 3 message optional bytes",
    ),
    ("SatAuthHeaderPair", "1 key SatAuthHeader, 2 value string"),
    ("SatAuthReq", "1 id string, 2 token string, 3 headers repeated SatAuthHeaderPair"),
    ("SatAuthResp", "1 id string, 3 headers repeated SatAuthHeaderPair"),
    (
        "SatInStartReplicationReq",
        "1 lsn bytes, 2 options repeated SatInStartReplicationReq.Option, \
         4 subscription_ids repeated string, 5 schema_version optional string, \
         6 observed_transaction_data repeated uint64, \
         7 sql_dialect optional SatInStartReplicationReq.Dialect, \
         8 observed_gone_batch repeated string, reserved 3",
    ),
    (
        "SatInStartReplicationResp",
        "1 err optional SatInStartReplicationResp.ReplicationError, \
         2 unacked_window_size optional uint32",
    ),
    (
        "SatInStartReplicationResp.ReplicationError",
        "1 code SatInStartReplicationResp.ReplicationError.Code, 2 message string",
    ),
    ("SatInStopReplicationReq", ""),
    ("SatInStopReplicationResp", ""),
    ("SatRelationColumn", "1 name string, 2 type string, 3 primaryKey bool, 4 is_nullable bool"),
    (
        "SatRelation",
        "1 schema_name string, 2 table_type SatRelation.RelationType, 3 table_name string, \
         4 relation_id uint32, 5 columns repeated SatRelationColumn",
    ),
    ("SatOpLog", "1 ops repeated SatTransOp"),
    (
        "SatOpLogAck",
        "1 ack_timestamp uint64, 2 lsn bytes, 3 transaction_id uint64, \
         4 subscription_ids repeated string, 5 additional_data_source_ids repeated uint64, \
         6 gone_subscription_ids repeated string",
    ),
    (
        "SatTransOp",
        "1 begin oneof(op) SatOpBegin, 2 commit oneof(op) SatOpCommit, \
         3 update oneof(op) SatOpUpdate, 4 insert oneof(op) SatOpInsert, \
         5 delete oneof(op) SatOpDelete, 6 migrate oneof(op) SatOpMigrate, \
         7 compensation oneof(op) SatOpCompensation, 8 gone oneof(op) SatOpGone, \
         9 additional_begin oneof(op) SatOpAdditionalBegin, \
         10 additional_commit oneof(op) SatOpAdditionalCommit",
    ),
    (
        "SatOpBegin",
        "1 commit_timestamp uint64, 3 lsn bytes, 4 origin optional string, 5 is_migration bool, \
         6 additional_data_ref uint64, 7 transaction_id optional uint64, reserved 2",
    ),
    ("SatOpAdditionalBegin", "1 ref uint64"),
    (
        "SatOpCommit",
        "1 commit_timestamp uint64, 3 lsn bytes, 4 additional_data_ref uint64, \
         5 transaction_id optional uint64, reserved 2",
    ),
    ("SatOpAdditionalCommit", "1 ref uint64"),
    ("SatOpInsert", "1 relation_id uint32, 2 row_data SatOpRow, 3 tags repeated string"),
    (
        "SatOpUpdate",
        "1 relation_id uint32, 2 row_data SatOpRow, 3 old_row_data SatOpRow, \
         4 tags repeated string",
    ),
    ("SatOpDelete", "1 relation_id uint32, 2 old_row_data SatOpRow, 3 tags repeated string"),
    ("SatOpCompensation", "1 relation_id uint32, 2 pk_data SatOpRow, 4 tags repeated string"),
    ("SatOpGone", "1 relation_id uint32, 2 pk_data SatOpRow"),
    ("SatOpRow", "1 nulls_bitmask bytes, 2 values repeated bytes"),
    (
        "SatOpMigrate",
        "1 version string, 2 stmts repeated SatOpMigrate.Stmt, \
         3 table oneof(affected_entity) SatOpMigrate.Table, \
         4 enum_type oneof(affected_entity) SatOpMigrate.EnumType",
    ),
    ("SatOpMigrate.Stmt", "1 type SatOpMigrate.Type, 2 sql string"),
    ("SatOpMigrate.PgColumnType", "1 name string, 2 array repeated int32, 3 size repeated int32"),
    (
        "SatOpMigrate.Column",
        "1 name string, 2 sqlite_type string, 3 pg_type SatOpMigrate.PgColumnType",
    ),
    (
        "SatOpMigrate.ForeignKey",
        "1 fk_cols repeated string, 2 pk_table string, 3 pk_cols repeated string",
    ),
    (
        "SatOpMigrate.Table",
        "1 name string, 2 columns repeated SatOpMigrate.Column, \
         3 fks repeated SatOpMigrate.ForeignKey, 4 pks repeated string",
    ),
    ("SatOpMigrate.EnumType", "1 name string, 2 values repeated string"),
    ("SatSubsReq", "1 subscription_id string, 2 shape_requests repeated SatShapeReq"),
    ("SatSubsResp", "1 subscription_id string, 2 err optional SatSubsResp.SatSubsError"),
    (
        "SatSubsResp.SatSubsError",
        "2 code SatSubsResp.SatSubsError.Code, 3 message string, \
         4 shape_request_error repeated SatSubsResp.SatSubsError.ShapeReqError",
    ),
    (
        "SatSubsResp.SatSubsError.ShapeReqError",
        "1 code SatSubsResp.SatSubsError.ShapeReqError.Code, 2 message string, \
         3 request_id string",
    ),
    ("SatUnsubsReq", "1 subscription_ids repeated string"),
    ("SatUnsubsResp", ""),
    ("SatShapeReq", "1 request_id string, 2 shape_definition SatShapeDef"),
    ("SatShapeDef", "1 selects repeated SatShapeDef.Select"),
    ("SatShapeDef.Relation", "1 foreign_key repeated string, 2 select SatShapeDef.Select"),
    (
        "SatShapeDef.Select",
        "1 tablename string, 2 where string, 3 include repeated SatShapeDef.Relation",
    ),
    (
        "SatSubsDataError",
        "1 code SatSubsDataError.Code, 2 message string, 3 subscription_id string, \
         4 shape_request_error repeated SatSubsDataError.ShapeReqError",
    ),
    (
        "SatSubsDataError.ShapeReqError",
        "1 code SatSubsDataError.ShapeReqError.Code, 2 message string, 3 request_id string",
    ),
    ("SatSubsDataBegin", "1 subscription_id string, 2 lsn bytes"),
    ("SatSubsDataEnd", ""),
    ("SatUnsubsDataBegin", "1 subscription_ids repeated string, 2 lsn bytes"),
    ("SatUnsubsDataEnd", ""),
    ("SatShapeDataBegin", "1 request_id string, 2 uuid string"),
    ("SatShapeDataEnd", ""),
];

/// Enum and its values.
const ENUMS: &[(&str, &str)] = &[
    ("SatAuthHeader", "0 UNSPECIFIED, reserved 1"),
    (
        "SatErrorResp.ErrorCode",
        "0 INTERNAL, 1 AUTH_REQUIRED, 2 AUTH_FAILED, 3 REPLICATION_FAILED, 4 INVALID_REQUEST, \
         5 PROTO_VSN_MISMATCH, 6 SCHEMA_VSN_MISMATCH",
    ),
    ("SatInStartReplicationReq.Option", "0 NONE, reserved 1 to 4"),
    ("SatInStartReplicationReq.Dialect", "0 SQLITE, 1 POSTGRES"),
    (
        "SatInStartReplicationResp.ReplicationError.Code",
        "0 CODE_UNSPECIFIED, 1 BEHIND_WINDOW, 2 INVALID_POSITION, 3 SUBSCRIPTION_NOT_FOUND, \
         4 MALFORMED_LSN, 5 UNKNOWN_SCHEMA_VSN",
    ),
    ("SatRelation.RelationType", "0 TABLE, 1 INDEX, 2 VIEW, 3 TRIGGER"),
    ("SatOpMigrate.Type", "0 CREATE_TABLE, 1 CREATE_INDEX, 2 CREATE_ENUM_TYPE, 6 ALTER_ADD_COLUMN"),
    (
        "SatSubsResp.SatSubsError.Code",
        "0 CODE_UNSPECIFIED, 1 SUBSCRIPTION_ID_ALREADY_EXISTS, 2 SHAPE_REQUEST_ERROR",
    ),
    (
        "SatSubsResp.SatSubsError.ShapeReqError.Code",
        "0 CODE_UNSPECIFIED, 1 TABLE_NOT_FOUND, 2 REFERENTIAL_INTEGRITY_VIOLATION, \
         3 EMPTY_SHAPE_DEFINITION, 4 DUPLICATE_TABLE_IN_SHAPE_DEFINITION, \
         5 INVALID_WHERE_CLAUSE, 6 INVALID_INCLUDE_TREE",
    ),
    ("SatSubsDataError.Code", "0 CODE_UNSPECIFIED, 1 SHAPE_DELIVERY_ERROR"),
    ("SatSubsDataError.ShapeReqError.Code", "0 CODE_UNSPECIFIED, 1 SHAPE_SIZE_LIMIT_EXCEEDED"),
];

/// Service and its methods: name, request, response.
const SERVICES: &[(&str, &str)] = &[
    (
        "Root",
        "authenticate(SatAuthReq) SatAuthResp, \
         startReplication(SatInStartReplicationReq) SatInStartReplicationResp, \
         stopReplication(SatInStopReplicationReq) SatInStopReplicationResp, \
         subscribe(SatSubsReq) SatSubsResp, unsubscribe(SatUnsubsReq) SatUnsubsResp",
    ),
    (
        "ClientRoot",
        "startReplication(SatInStartReplicationReq) SatInStartReplicationResp, \
         stopReplication(SatInStopReplicationReq) SatInStopReplicationResp",
    ),
];

#[test]
fn the_schema_is_one_proto3_file_of_the_package() {
    let schema = schema();
    assert_eq!(schema.package(), PACKAGE);
    assert_eq!(schema.syntax(), "proto3");
    assert_eq!(schema.dependency, [""; 0]);
    assert_eq!(schema.extension, []);
}

#[test]
fn messages_keep_their_fields() {
    let mut found = Rows::new();
    for message in &schema().message_type {
        add_message(&mut found, "", message);
    }
    assert_rows(&found, MESSAGES);
}

#[test]
fn enums_keep_their_values() {
    let schema = schema();
    let mut found: Rows = schema.enum_type.iter().map(|e| enum_row("", e)).collect();
    for message in &schema.message_type {
        add_enums(&mut found, "", message);
    }
    assert_rows(&found, ENUMS);
}

#[test]
fn services_keep_their_methods() {
    let schema = schema();
    let found = schema.service.iter();
    let found = found.map(|s| (s.name().to_owned(), list(s.method.iter().map(method))));
    assert_rows(&found.collect(), SERVICES);
}

/// Name and contents, one for each message, enum or service.
type Rows = BTreeSet<(String, String)>;

fn schema() -> FileDescriptorProto {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut files = protox::compile(["satellite.proto"], [directory]).expect("a valid schema").file;
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// Names what differs, instead of printing both tables.
fn assert_rows(found: &Rows, pinned: &[(&str, &str)]) {
    let own = |(name, contents): &(&str, &str)| (name.to_string(), contents.to_string());
    let pinned: Rows = pinned.iter().map(own).collect();
    let missing: Vec<_> = pinned.difference(found).collect();
    let unexpected: Vec<_> = found.difference(&pinned).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "pinned but not in the schema: {missing:#?}\nin the schema but not pinned: {unexpected:#?}"
    );
}

fn add_message(rows: &mut Rows, outer: &str, message: &DescriptorProto) {
    let name = format!("{outer}{}", message.name());
    for nested in &message.nested_type {
        add_message(rows, &format!("{name}."), nested);
    }
    let fields = message.field.iter().map(|field| self::field(message, field));
    // The end of a message's range is the first number after it.
    let ranges = message.reserved_range.iter().map(|range| range.start()..=range.end() - 1);
    rows.insert((name, list(fields.chain(reserved(ranges, &message.reserved_name)))));
}

fn add_enums(rows: &mut Rows, outer: &str, message: &DescriptorProto) {
    let inner = format!("{outer}{}.", message.name());
    rows.extend(message.enum_type.iter().map(|e| enum_row(&inner, e)));
    for nested in &message.nested_type {
        add_enums(rows, &inner, nested);
    }
}

fn enum_row(outer: &str, e: &EnumDescriptorProto) -> (String, String) {
    let values = e.value.iter().map(|value| format!("{} {}", value.number(), value.name()));
    let ranges = e.reserved_range.iter().map(|range| range.start()..=range.end());
    let contents = list(values.chain(reserved(ranges, &e.reserved_name)));
    (format!("{outer}{}", e.name()), contents)
}

fn field(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut text = format!("{} {} {}", field.number(), field.name(), label(message, field));
    text.push_str(&match field.type_name() {
        "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        name => local(name).to_owned(),
    });
    // An option, such as `packed`, may change what is on the wire.
    if let Some(options) = &field.options {
        text.push_str(&format!(" {options:?}"));
    }
    text
}

fn label(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    match field.oneof_index {
        _ if field.label() == Label::Repeated => "repeated ".to_owned(),
        // The compiler puts an `optional` field into a oneof of its own.
        Some(_) if field.proto3_optional() => "optional ".to_owned(),
        Some(index) => format!("oneof({}) ", message.oneof_decl[index as usize].name()),
        None => String::new(),
    }
}

fn reserved(
    ranges: impl Iterator<Item = RangeInclusive<i32>>,
    names: &[String],
) -> impl Iterator<Item = String> {
    let ranges = ranges.map(|range| match range.start() == range.end() {
        true => format!("reserved {}", range.start()),
        false => format!("reserved {} to {}", range.start(), range.end()),
    });
    ranges.chain(names.iter().map(|name| format!("reserved {name:?}")))
}

fn method(method: &MethodDescriptorProto) -> String {
    assert!(!method.client_streaming() && !method.server_streaming(), "{}", method.name());
    format!("{}({}) {}", method.name(), local(method.input_type()), local(method.output_type()))
}

/// A type's name within the package.
fn local(name: &str) -> &str {
    let inside = name.strip_prefix('.').and_then(|name| name.strip_prefix(PACKAGE));
    inside.and_then(|name| name.strip_prefix('.')).unwrap_or(name)
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
