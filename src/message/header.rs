//! The names of headers: those that are written here, and those that mean something to others and pass
//! through as they are.
//!
//! Owns the names alone. Must not know when a header is written.

/// The identity of a record: the id of the log it was appended to, `-`, its number there. By it a
/// consumer drops what comes twice.
pub const ID: &str = "ferry-id";
/// A record's own timestamp, in milliseconds since 1970, where it was sent with another one.
pub const TIME: &str = "ferry-time";
/// The identity of the record that an edited dead letter comes from.
pub const ORIGIN: &str = "ferry-origin";

/// What a value is: a media type. Written with CloudEvents.
pub const CONTENT_TYPE: &str = "content-type";
/// What an event belongs to. Written with events whose value has no place for it.
pub const CORRELATION_ID: &str = "correlation-id";
/// By which a consumer knows a request that comes again. Never written here.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The place in a trace, as W3C has it. Never written here.
pub const TRACEPARENT: &str = "traceparent";

/// The attributes of a CloudEvent in binary mode, as its Kafka protocol binding names them.
pub mod ce {
    /// Which version of the specification: `1.0`.
    pub const SPEC_VERSION: &str = "ce_specversion";
    /// The id of the event, unique within its source.
    pub const ID: &str = "ce_id";
    /// Who says it.
    pub const SOURCE: &str = "ce_source";
    /// What kind of event it is.
    pub const TYPE: &str = "ce_type";
    /// When it happened, as RFC 3339 has it.
    pub const TIME: &str = "ce_time";
    /// What it belongs to: an attribute of the extension *Correlation*.
    pub const CORRELATION_ID: &str = "ce_correlationid";
    /// The version of the event's data: an attribute of our own.
    pub const VERSION: &str = "ce_version";
}

/// Why a record died, on its copy in the dead-letter topic (style `native`).
pub mod dlq {
    /// How each of them begins. A user's header that begins so is not sent again with a dead letter.
    pub const PREFIX: &str = "dlq.";
    /// The topic that it was for.
    pub const TOPIC: &str = "dlq.topic";
    /// The partition that it was for, if it named one.
    pub const PARTITION: &str = "dlq.partition";
    /// Its timestamp, in milliseconds since 1970.
    pub const TIMESTAMP: &str = "dlq.timestamp";
    /// The class of the failure.
    pub const CLASS: &str = "dlq.class";
    /// Kafka's error code.
    pub const CODE: &str = "dlq.code";
    /// Where it failed.
    pub const STAGE: &str = "dlq.stage";
    /// The reason, in words.
    pub const REASON: &str = "dlq.reason";
    /// How often it was tried.
    pub const ATTEMPTS: &str = "dlq.attempts";
    /// When first.
    pub const FIRST_ATTEMPT: &str = "dlq.first-attempt";
    /// When last.
    pub const LAST_ATTEMPT: &str = "dlq.last-attempt";
    /// The lane it was appended to.
    pub const LANE: &str = "dlq.lane";
    /// Its number there.
    pub const SEQ: &str = "dlq.seq";
    /// The id of that lane's log.
    pub const LOG_ID: &str = "dlq.log-id";
    /// Of a pointer: the log that has the bytes.
    pub const KEPT_LOG_ID: &str = "dlq.kept-log-id";
    /// Of a pointer: the number of the letter in it.
    pub const KEPT_SEQ: &str = "dlq.kept-seq";
    /// Of a pointer: how many bytes there are.
    pub const KEPT_BYTES: &str = "dlq.kept-bytes";
}

/// The same as Kafka Connect has it (style `connect`).
pub mod connect {
    /// How each of them begins.
    pub const PREFIX: &str = "__connect.errors.";
    /// The topic that the record was for.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// The partition that it was for, if it named one.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// Its number in its log.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// Its lane.
    pub const CONNECTOR_NAME: &str = "__connect.errors.connector.name";
    /// Always 0.
    pub const TASK_ID: &str = "__connect.errors.task.id";
    /// Where it failed.
    pub const STAGE: &str = "__connect.errors.stage";
    /// Always `ferrylog`.
    pub const CLASS_NAME: &str = "__connect.errors.class.name";
    /// The class of the failure.
    pub const EXCEPTION_CLASS_NAME: &str = "__connect.errors.exception.class.name";
    /// The reason, in words.
    pub const EXCEPTION_MESSAGE: &str = "__connect.errors.exception.message";
}
