//! Handing a record to librdkafka by its topic's handle.
//!
//! Owns the handles. The binding names the topic with each record: a copy of the name, librdkafka's lock
//! and a search of its list of topics. Must not know what becomes of a record. Invariant: a handle lives as
//! long as this does, and this is dropped before its client.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::mem;
use std::ptr::{self, NonNull};

use rdkafka::bindings as native;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::{RDKafka, RDKafkaHeaders, RDKafkaTopic};

use super::Outgoing;

/// The topics that were sent to, as librdkafka knows them.
#[derive(Default)]
pub(super) struct Topics {
    all: Vec<(Box<str>, Handle)>,
    /// Their places, by name.
    places: HashMap<Box<str>, usize>,
    /// The one sent to last: most records go where the one before them went.
    last: usize,
}

struct Handle(NonNull<RDKafkaTopic>);

// SAFETY: librdkafka's handles may be used by any thread; each has its own lock.
#[expect(unsafe_code, reason = "a raw pointer is not `Send` by itself")]
unsafe impl Send for Handle {}

impl Drop for Handle {
    #[expect(unsafe_code, reason = "the binding keeps its handles to itself")]
    fn drop(&mut self) {
        // SAFETY: it was made by `rd_kafka_topic_new`, and is destroyed once.
        unsafe { native::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

impl Topics {
    /// Hands one record over, which librdkafka copies. Never blocks.
    #[expect(unsafe_code, reason = "the binding names the topic with each record")]
    pub(super) fn produce(
        &mut self,
        client: *mut RDKafka,
        record: &Outgoing<'_>,
        slot: usize,
    ) -> Result<(), RDKafkaErrorCode> {
        use native::rd_kafka_vtype_t as Part;
        let topic = self.handle(client, record.topic)?;
        let headers = Headers::of(record.headers)?;
        let (key, key_len) = parts(record.key);
        let (value, value_len) = parts(record.value);
        // SAFETY: client and topic live; each part is followed by what librdkafka reads for it: value and
        // key are a pointer and a length, and are copied before this returns.
        let code = unsafe {
            native::rd_kafka_producev(
                client,
                Part::RD_KAFKA_VTYPE_RKT,
                topic,
                Part::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                Part::RD_KAFKA_VTYPE_MSGFLAGS,
                native::RD_KAFKA_MSG_F_COPY,
                Part::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Part::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Part::RD_KAFKA_VTYPE_OPAQUE,
                ptr::without_provenance_mut::<c_void>(slot),
                Part::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_millis,
                Part::RD_KAFKA_VTYPE_HEADERS,
                headers.0,
                Part::RD_KAFKA_VTYPE_END,
            )
        };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => {
                // They are librdkafka's now.
                mem::forget(headers);
                Ok(())
            }
            code => Err(code),
        }
    }

    #[expect(unsafe_code, reason = "the binding keeps its handles to itself")]
    fn handle(
        &mut self,
        client: *mut RDKafka,
        name: &str,
    ) -> Result<*mut RDKafkaTopic, RDKafkaErrorCode> {
        if let Some((last, handle)) = self.all.get(self.last)
            && **last == *name
        {
            return Ok(handle.0.as_ptr());
        }
        if let Some(&place) = self.places.get(name) {
            self.last = place;
            return Ok(self.all[place].1.0.as_ptr());
        }
        let text = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client lives, the name is copied, and without settings it gets the client's.
        let made = unsafe { native::rd_kafka_topic_new(client, text.as_ptr(), ptr::null_mut()) };
        let made = NonNull::new(made).ok_or(RDKafkaErrorCode::InvalidTopic)?;
        self.last = self.all.len();
        self.all.push((name.into(), Handle(made)));
        self.places.insert(name.into(), self.last);
        Ok(made.as_ptr())
    }
}

/// Headers on their way; none is a null pointer.
struct Headers(*mut RDKafkaHeaders);

impl Headers {
    #[expect(unsafe_code, reason = "the binding keeps what it made to itself")]
    fn of(given: &[(&str, Option<&[u8]>)]) -> Result<Headers, RDKafkaErrorCode> {
        if given.is_empty() {
            return Ok(Headers(ptr::null_mut()));
        }
        // SAFETY: it only allocates.
        let headers = Headers(unsafe { native::rd_kafka_headers_new(given.len()) });
        for &(name, value) in given {
            let (value, value_len) = parts(value);
            // SAFETY: the list lives; name and value are copied, by the lengths that are given with them.
            let code = unsafe {
                native::rd_kafka_header_add(
                    headers.0,
                    name.as_ptr().cast(),
                    name.len().cast_signed(),
                    value,
                    value_len.cast_signed(),
                )
            };
            match RDKafkaErrorCode::from(code) {
                RDKafkaErrorCode::NoError => {}
                code => return Err(code),
            }
        }
        Ok(headers)
    }
}

impl Drop for Headers {
    #[expect(unsafe_code, reason = "the counterpart of making them")]
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: librdkafka did not take them over: then this is forgotten.
            unsafe { native::rd_kafka_headers_destroy(self.0) }
        }
    }
}

/// Nothing is a null pointer; what is empty is not.
fn parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| {
        (bytes.as_ptr().cast_mut().cast(), bytes.len())
    })
}
