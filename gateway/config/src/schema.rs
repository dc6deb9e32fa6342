//! Every section and key, with its kind, unit, default and range.

/// What a whole number may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Smallest allowed.
    pub min: u64,
    /// Largest allowed.
    pub max: u64,
    /// Taken when the key is missing; `None` where it must not be missing.
    pub default: Option<u64>,
    /// The unit, as it stands in the key's name where there is one.
    pub unit: &'static str,
}

const fn bounds(min: u64, max: u64, default: u64, unit: &'static str) -> Bounds {
    Bounds { min, max, default: Some(default), unit }
}

/// `[store] free_space_floor_mib`
pub const FREE_SPACE_FLOOR_MIB: Bounds = bounds(16, 1_048_576, 256, "MiB");
/// `[store] retention_days`
pub const RETENTION_DAYS: Bounds = bounds(0, 3_650, 7, "days");
/// `[mqtt] connections_max`
pub const CONNECTIONS_MAX: Bounds = bounds(1, 10_000, 1_000, "connections");
/// `[mqtt] messages_per_second_max`
pub const MESSAGES_PER_SECOND_MAX: Bounds = bounds(1, 100_000, 2_000, "messages/s");
/// `[mqtt] packet_bytes_max`: from a CONNECT's largest to what one sample may hold; the endpoint keeps to the same
pub const PACKET_BYTES_MAX: Bounds = bounds(8_192, vitalgate_domain::limits::PAYLOAD_BYTES_MAX as u64, 65_536, "bytes");
/// `modbus = { unit }` (Modbus Messaging on TCP/IP Implementation Guide V1.0b, 4.4.2.2: 0 and 255 address a device directly)
pub const UNIT: Bounds = Bounds { min: 0, max: 255, default: None, unit: "unit id" };
/// `modbus = { poll_interval_ms }`
pub const POLL_INTERVAL_MS: Bounds = bounds(50, 86_400_000, 1_000, "ms");
/// `modbus = { response_timeout_ms }`; the poller keeps to the same
pub const RESPONSE_TIMEOUT_MS: Bounds = bounds(20, vitalgate_domain::limits::RESPONSE_TIMEOUT_MS_MAX, 1_000, "ms");
/// `[[destination]] batch_items_max`
pub const BATCH_ITEMS_MAX: Bounds = bounds(1, vitalgate_domain::limits::BATCH_ITEMS_MAX as u64, 50, "readings");
/// `[[destination]] batch_bytes_max`
pub const BATCH_BYTES_MAX: Bounds = bounds(4_096, 8_388_608, 524_288, "bytes");
/// `[[destination]] requests_in_flight_max`
pub const REQUESTS_IN_FLIGHT_MAX: Bounds = bounds(1, 64, 4, "requests");
/// `[[destination]] request_timeout_ms`
pub const REQUEST_TIMEOUT_MS: Bounds = bounds(500, 600_000, 30_000, "ms");
/// `[[destination]] join_window_ms`
pub const JOIN_WINDOW_MS: Bounds = bounds(0, 60_000, 2_000, "ms");

/// Largest configuration file in bytes (1 MiB).
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most names in the server certificate.
pub const SERVER_NAMES_MAX: usize = 32;
/// Longest text value in bytes.
pub const TEXT_BYTES_MAX: usize = 2_048;
/// Longest path of a Unix socket in bytes (unix(7): `sun_path` holds 108 with its end).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text with rules of its own, named here.
    Text(&'static str),
    /// A file or folder.
    Path,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer(Bounds),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    TextList(&'static str),
    /// A table with keys of its own: the section of that name.
    Table(&'static str),
    /// A text, or a table with keys of its own.
    TextOrTable(&'static str, &'static str),
}

/// Whether a key may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// Without it the feature is off.
    Optional,
    /// Without it this is taken. For numbers the default stands in their bounds.
    Default(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be missing.
    pub need: Need,
}

/// One section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionSpec {
    /// As it is written, `[store]` or `[[device]]`; a table inside a section as `[[device]] modbus`.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, kind: Kind, need: Need) -> Key {
    Key { name, kind, need }
}

const fn number(name: &'static str, bounds: Bounds) -> Key {
    let need = if bounds.default.is_some() { Need::Default("") } else { Need::Required };
    Key { name, kind: Kind::Integer(bounds), need }
}

use Kind::{Boolean, OneOf, Path, Table, Text, TextList, TextOrTable};
use Need::{Default, Optional, Required};

const NAME: &str = "1 to 64 of a-z A-Z 0-9 . _ -";
const LISTEN: &str = "IP:port";

/// `[gateway]`
pub const GATEWAY: SectionSpec = SectionSpec {
    title: "[gateway]",
    keys: &[
        key("name", Text(NAME), Required),
        key("device_namespace", Text(NAME), Default("the gateway's name")),
        key("state_dir", Path, Required),
        key("clock_trust_file", Path, Default("/run/vitalgate/clock-trust")),
    ],
};
/// `[store]`
pub const STORE: SectionSpec = SectionSpec {
    title: "[store]",
    keys: &[
        number("free_space_floor_mib", FREE_SPACE_FLOOR_MIB),
        number("retention_days", RETENTION_DAYS),
        key("key_credential", Text(NAME), Optional),
        key("given_up", TextList("ids of destinations, at most 8"), Optional),
    ],
};
/// `[mqtt]`
pub const MQTT: SectionSpec = SectionSpec {
    title: "[mqtt]",
    keys: &[
        key("listen", Text(LISTEN), Default("0.0.0.0:8883")),
        key("server_names", TextList("DNS names or IP addresses, at most 32"), Default("the gateway's name")),
        key("client_certificate", OneOf(&["required", "optional"]), Default("required")),
        key("plain_listen", Text(LISTEN), Optional),
        key("allow_plain_beyond_loopback", Boolean, Default("false")),
        number("connections_max", CONNECTIONS_MAX),
        number("messages_per_second_max", MESSAGES_PER_SECOND_MAX),
        number("packet_bytes_max", PACKET_BYTES_MAX),
    ],
};
/// `[profiles]`
pub const PROFILES: SectionSpec = SectionSpec { title: "[profiles]", keys: &[key("dir", Path, Optional)] };
/// `[[device]]`
pub const DEVICE: SectionSpec = SectionSpec {
    title: "[[device]]",
    keys: &[
        key("id", Text(NAME), Required),
        key("profile", Text("a profile's id"), Required),
        key("patient", TextOrTable("Patient/<id>", "[[device]] patient"), Optional),
        key("patient_since", Text("RFC 3339 with an offset"), Optional),
        key("modbus", Table("[[device]] modbus"), Optional),
    ],
};
/// `[[device]] patient`
pub const PATIENT: SectionSpec =
    SectionSpec { title: "[[device]] patient", keys: &[key("system", Text("a URI"), Required), key("value", Text("any text"), Required)] };
/// `[[device]] modbus`
pub const MODBUS: SectionSpec = SectionSpec {
    title: "[[device]] modbus",
    keys: &[
        key("address", Text("host:port"), Required),
        number("unit", UNIT),
        number("poll_interval_ms", POLL_INTERVAL_MS),
        number("response_timeout_ms", RESPONSE_TIMEOUT_MS),
    ],
};
/// `[[destination]]`
pub const DESTINATION: SectionSpec = SectionSpec {
    title: "[[destination]]",
    keys: &[
        key("id", Text(NAME), Required),
        key("kind", OneOf(&["fhir"]), Required),
        key("url", Text("https://host[:port][/path]"), Required),
        key("same_patient_ids_as", Text("id of another destination"), Optional),
        key("ca_file", Path, Optional),
        key("client_certificate_file", Path, Optional),
        key("client_key_file", Path, Optional),
        key("client_key_credential", Text(NAME), Optional),
        key("bearer_token_file", Path, Optional),
        key("allow_plain_beyond_loopback", Boolean, Default("false")),
        key("plain_reason", Text("any text"), Optional),
        key("write", OneOf(&["auto", "put", "conditional"]), Default("auto")),
        number("batch_items_max", BATCH_ITEMS_MAX),
        number("batch_bytes_max", BATCH_BYTES_MAX),
        number("requests_in_flight_max", REQUESTS_IN_FLIGHT_MAX),
        number("request_timeout_ms", REQUEST_TIMEOUT_MS),
        number("join_window_ms", JOIN_WINDOW_MS),
    ],
};
/// `[console]`
pub const CONSOLE: SectionSpec = SectionSpec {
    title: "[console]",
    keys: &[
        key("listen", Text("IP:port, loopback"), Default("127.0.0.1:9464")),
        key("admin_socket", Path, Default("<state_dir>/admin.sock")),
    ],
};
/// `[log]`
pub const LOG: SectionSpec = SectionSpec {
    title: "[log]",
    keys: &[
        key("format", OneOf(&["human", "json"]), Default("human")),
        key("level", OneOf(&["error", "warn", "info", "debug", "trace"]), Default("info")),
    ],
};

/// The file itself: its sections.
pub const ROOT: SectionSpec = SectionSpec {
    title: "the file",
    keys: &[
        key("gateway", Table("[gateway]"), Required),
        key("store", Table("[store]"), Optional),
        key("mqtt", Table("[mqtt]"), Optional),
        key("profiles", Table("[profiles]"), Optional),
        key("device", Table("[[device]]"), Optional),
        key("destination", Table("[[destination]]"), Optional),
        key("console", Table("[console]"), Optional),
        key("log", Table("[log]"), Optional),
    ],
};

/// Every section in the order of the documentation.
pub const SECTIONS: &[SectionSpec] = &[GATEWAY, STORE, MQTT, PROFILES, DEVICE, PATIENT, MODBUS, DESTINATION, CONSOLE, LOG];

impl Key {
    /// The unit column of the documentation.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Integer(bounds) => bounds.unit,
            _ => "",
        }
    }

    /// The default column of the documentation.
    #[must_use]
    pub fn default(&self) -> String {
        match (self.kind, self.need) {
            (Kind::Integer(Bounds { default: Some(default), .. }), _) => default.to_string(),
            (_, Need::Default(text)) => text.to_owned(),
            (_, Need::Required) => "required".to_owned(),
            (_, Need::Optional) => "none".to_owned(),
        }
    }

    /// The range column of the documentation.
    #[must_use]
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Integer(bounds) => format!("{} to {}", bounds.min, bounds.max),
            Kind::Boolean => "true, false".to_owned(),
            Kind::OneOf(words) => words.join(", "),
            Kind::Text(rule) | Kind::TextList(rule) => rule.to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Table(_) => "table".to_owned(),
            Kind::TextOrTable(rule, _) => format!("{rule} or table"),
        }
    }
}

impl SectionSpec {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
