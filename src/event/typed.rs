//! Event types that have names, and what is said in the events of some of them.
//!
//! Owns the types' names and the members of their data. Must not know how an event looks around them,
//! or where it goes.
//!
//! Each is made empty and filled in, so that it can get more members:
//!
//! ```
//! use ferrylog::event::EventBuilder;
//! use ferrylog::event::typed::UserLoggedIn;
//!
//! let events = EventBuilder::new("auth-service");
//! let mut login = UserLoggedIn::default();
//! login.user_id = "42".into();
//! login.login_time = events.now();
//! let event = events.typed(&login)?;
//! assert_eq!(event.event_type, "user.logged_in");
//! # Ok::<(), ferrylog::event::Error>(())
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Time;

/// Somebody logged in: [`UserLoggedIn`].
pub const USER_LOGGED_IN: &str = "user.logged_in";
/// Somebody registered: [`UserRegistered`].
pub const USER_REGISTERED: &str = "user.registered";
/// Somebody logged out.
pub const USER_LOGGED_OUT: &str = "user.logged_out";
/// A token was replaced by a newer one.
pub const TOKEN_REFRESHED: &str = "user.token_refreshed";
/// A request was answered: [`ApiRequest`].
pub const API_REQUEST: &str = "api.request";
/// A request failed: [`ApiError`].
pub const API_ERROR: &str = "api.error";
/// Somebody should look: [`SystemAlert`].
pub const SYSTEM_ALERT: &str = "system.alert";

/// What is said in the events of one type.
pub trait EventData: Serialize {
    /// That type.
    const TYPE: &'static str;
}

/// Somebody logged in.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct UserLoggedIn {
    /// Who.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// From where.
    pub ip_address: String,
    /// With what.
    pub user_agent: String,
    /// When.
    pub login_time: Option<Time>,
    /// The session that began.
    pub session_id: String,
    /// Whether it outlives the browser.
    pub remember_me: bool,
    /// How, such as `password`.
    pub login_method: String,
    /// What is known of the device: a text, or an object.
    pub device_info: Value,
    /// Where it is: a text, or an object.
    pub location: Value,
}

impl EventData for UserLoggedIn {
    const TYPE: &'static str = USER_LOGGED_IN;
}

/// Somebody registered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct UserRegistered {
    /// Who.
    pub user_id: String,
    /// Their address.
    pub email: String,
    /// Their first name.
    pub first_name: String,
    /// Their last name.
    pub last_name: String,
    /// When.
    pub registration_time: Option<Time>,
    /// From where.
    pub ip_address: String,
    /// By which way, such as `web`.
    pub registration_source: String,
    /// Whether the address was confirmed.
    pub email_verified: bool,
    /// The organization they belong to.
    pub organization_id: Option<String>,
}

impl EventData for UserRegistered {
    const TYPE: &'static str = USER_REGISTERED;
}

/// A request was answered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ApiRequest {
    /// Which.
    pub request_id: String,
    /// Whose; `None`: nobody was logged in.
    pub user_id: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The status of the answer.
    pub status_code: u16,
    /// How long that took, in milliseconds; in JSON `duration`.
    #[serde(rename = "duration")]
    pub duration_millis: u64,
    /// From where.
    pub ip_address: String,
    /// When it came.
    pub request_time: Option<Time>,
    /// Bytes of the answer.
    pub response_size: u64,
    /// Bytes of the request.
    pub request_size: u64,
}

impl EventData for ApiRequest {
    const TYPE: &'static str = API_REQUEST;
}

/// A request failed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ApiError {
    /// Which.
    pub request_id: String,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The status of the answer.
    pub status_code: u16,
    /// What kind of error it was.
    pub error_type: String,
    /// The error in words.
    pub error_message: String,
    /// The error as programs know it.
    pub error_code: String,
    /// When.
    pub error_time: Option<Time>,
}

impl EventData for ApiError {
    const TYPE: &'static str = API_ERROR;
}

/// Somebody should look.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SystemAlert {
    /// Which.
    pub alert_id: String,
    /// What kind of alert it is; in JSON `type`.
    #[serde(rename = "type")]
    pub alert_type: String,
    /// The service it is about.
    pub service: String,
    /// The part of it.
    pub component: String,
    /// The alert in words.
    pub message: String,
    /// How bad it is, such as `critical`.
    pub severity: String,
    /// When.
    pub alert_time: Option<Time>,
    /// Whatever else is known.
    pub metadata: Map<String, Value>,
    /// Whether it is over.
    pub resolved: bool,
}

impl EventData for SystemAlert {
    const TYPE: &'static str = SYSTEM_ALERT;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    /// Its members are these and no others, and it reads back.
    fn check<T: EventData + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &T, names: &str) {
        let json = serde_json::to_value(data).unwrap();
        let mut members: Vec<&str> = json.as_object().unwrap().keys().map(|k| &**k).collect();
        let mut names: Vec<&str> = names.split(' ').collect();
        members.sort_unstable();
        names.sort_unstable();
        assert_eq!(members, names, "{}", T::TYPE);
        assert_eq!(serde_json::from_value::<T>(json).unwrap(), *data);
    }

    #[test]
    fn each_has_exactly_its_members() {
        let time = Some(Time::from_millis(5));
        check(
            &UserLoggedIn {
                login_time: time,
                device_info: "phone".into(),
                ..UserLoggedIn::default()
            },
            "user_id email ip_address user_agent login_time session_id remember_me login_method \
             device_info location",
        );
        check(
            &UserRegistered::default(),
            "user_id email first_name last_name registration_time ip_address \
             registration_source email_verified organization_id",
        );
        check(
            &ApiRequest {
                duration_millis: 7,
                ..ApiRequest::default()
            },
            "request_id user_id method path status_code duration ip_address request_time \
             response_size request_size",
        );
        check(
            &ApiError::default(),
            "request_id method path status_code error_type error_message error_code error_time",
        );
        check(
            &SystemAlert::default(),
            "alert_id type service component message severity alert_time metadata resolved",
        );
    }
}
