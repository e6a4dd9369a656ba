//! The engine through its public face: one module a subject.

mod append;
