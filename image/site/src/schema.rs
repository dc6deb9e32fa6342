//! Every section and key of a site file and of a request, with kind, unit, default and range.

use vitalgate_config::schema::Kind::{Boolean, Integer, OneOf, Table, Text, TextList};
use vitalgate_config::schema::Need::{Default, Optional, Required};
use vitalgate_config::schema::{self as daemon, Bounds, Key, Kind, Need, SectionSpec};

/// Most ports of the network that a site file configures.
pub const NETWORKS_MAX: usize = 16;
/// Most addresses of a port, time sources of a kind, name servers, serial numbers.
pub const LIST_ITEMS_MAX: usize = 64;
/// Longest text in bytes, but for certificates.
pub const TEXT_BYTES_MAX: usize = 512;
/// `[[network]] vlan` (IEEE 802.1Q, 9.6: 0 and 4095 are reserved)
pub const VLAN: Bounds = Bounds { min: 1, max: 4094, default: None, unit: "VLAN id" };
/// `[mqtt] port`: the gateway has no privileges (ip(7): ports below 1024 take `CAP_NET_BIND_SERVICE`)
pub const MQTT_PORT: Bounds = Bounds { min: 1_024, max: 65_535, default: Some(8883), unit: "unprivileged TCP port" };

const fn key(name: &'static str, kind: Kind, need: Need) -> Key {
    Key { name, kind, need }
}

const fn number(name: &'static str, bounds: Bounds) -> Key {
    Key { name, kind: Integer(bounds), need: Need::Default("") }
}

const NAME: &str = "1 to 64 of a-z A-Z 0-9 . _ -";
const PEM: &str = "certificates of authorities in PEM";

/// `[site]`
pub const SITE: SectionSpec = SectionSpec {
    title: "[site]",
    keys: &[
        key("name", Text("any text"), Required),
        key("gateway", Text(NAME), Required),
        key("device_namespace", Text(NAME), Default("the gateway's name")),
        key("serial", TextList("\"any\", or serial numbers; a * at the end stands for the rest"), Required),
        key("expires", Text("YYYY-MM-DD"), Required),
        key("technician", Text("any text"), Required),
    ],
};
/// `[[network]]`
pub const NETWORK: SectionSpec = SectionSpec {
    title: "[[network]]",
    keys: &[
        key("match", Text("a port's name such as en*, or its MAC address"), Required),
        key("dhcp", Boolean, Default("true without address, else false")),
        key("address", TextList("IP/prefix length"), Optional),
        key("gateway", Text("IP address"), Optional),
        key("dns", TextList("IP addresses"), Optional),
        key("domains", TextList("DNS domains that these name servers know"), Optional),
        key("vlan", Integer(VLAN), Optional),
    ],
};
/// `[time]`
pub const TIME: SectionSpec = SectionSpec {
    title: "[time]",
    keys: &[
        key("nts", TextList("host[:port] of servers with NTS"), Optional),
        key("ntp", TextList("host[:port] of servers without"), Optional),
        key("ca_pem", Text(PEM), Optional),
    ],
};
/// `[storage]`
pub const STORAGE: SectionSpec = SectionSpec {
    title: "[storage]",
    keys: &[
        key("unsealed_allowed", Boolean, Default("false")),
        key("unsealed_reason", Text("any text"), Optional),
        number("retention_days", daemon::RETENTION_DAYS),
        number("free_space_floor_mib", daemon::FREE_SPACE_FLOOR_MIB),
    ],
};
/// `[maintenance]`
pub const MAINTENANCE: SectionSpec = SectionSpec {
    title: "[maintenance]",
    keys: &[key("window", Text("HH:MM-HH:MM, UTC"), Required), key("days", TextList("mon tue wed thu fri sat sun"), Optional)],
};
/// `[update]`
pub const UPDATE: SectionSpec = SectionSpec {
    title: "[update]",
    keys: &[key("server", Text("https://host[:port][/path]"), Required), key("ca_pem", Text(PEM), Optional)],
};
/// `[mqtt]`
pub const MQTT: SectionSpec = SectionSpec {
    title: "[mqtt]",
    keys: &[
        number("port", MQTT_PORT),
        key("server_names", TextList("DNS names or IP addresses, at most 32"), Default("the gateway's name")),
        key("client_certificate", OneOf(&["required", "optional"]), Default("required")),
        number("connections_max", daemon::CONNECTIONS_MAX),
        number("messages_per_second_max", daemon::MESSAGES_PER_SECOND_MAX),
        number("packet_bytes_max", daemon::PACKET_BYTES_MAX),
    ],
};
/// `[[device]]`: as in the daemon's own configuration.
pub const DEVICE: SectionSpec = daemon::DEVICE;

const DESTINATION_KEYS: &[Key] = &[
    key("id", Text(NAME), Required),
    key("kind", OneOf(&["fhir"]), Default("fhir")),
    key("url", Text("https://host[:port][/path]"), Required),
    key("same_server_as", Text("https://host[:port][/path]"), Optional),
    key("same_patient_ids_as", Text("id of another destination"), Optional),
    key("ca_pem", Text(PEM), Optional),
    key("client_certificate", OneOf(&["none", "own"]), Default("none")),
    key("allow_plain_beyond_loopback", Boolean, Default("false")),
    key("plain_reason", Text("any text"), Optional),
    key("write", OneOf(&["auto", "put", "conditional"]), Default("auto")),
    number("batch_items_max", daemon::BATCH_ITEMS_MAX),
    number("batch_bytes_max", daemon::BATCH_BYTES_MAX),
    number("requests_in_flight_max", daemon::REQUESTS_IN_FLIGHT_MAX),
    number("request_timeout_ms", daemon::REQUEST_TIMEOUT_MS),
    number("join_window_ms", daemon::JOIN_WINDOW_MS),
];
/// `[[destination]]`
pub const DESTINATION: SectionSpec = SectionSpec { title: "[[destination]]", keys: DESTINATION_KEYS };
/// `[ehr]`: one destination whose id is `ehr`.
pub const EHR: SectionSpec = SectionSpec { title: "[ehr]", keys: DESTINATION_KEYS };

/// The file itself.
pub const ROOT: SectionSpec = SectionSpec {
    title: "the file",
    keys: &[
        key("site", Table("[site]"), Required),
        key("network", Table("[[network]]"), Optional),
        key("time", Table("[time]"), Optional),
        key("storage", Table("[storage]"), Optional),
        key("maintenance", Table("[maintenance]"), Optional),
        key("update", Table("[update]"), Optional),
        key("mqtt", Table("[mqtt]"), Optional),
        key("device", Table("[[device]]"), Optional),
        key("ehr", Table("[ehr]"), Optional),
        key("destination", Table("[[destination]]"), Optional),
    ],
};

/// `[request]`: the file on a stick `SUPPORT`, `RESET`, `REPLAY` or `CERTIFICATE`.
pub const REQUEST: SectionSpec = SectionSpec {
    title: "[request]",
    keys: &[
        key("action", OneOf(&["support", "reset", "decommission", "certificate", "replay", "discard"]), Required),
        key("id", Text("32 hex digits"), Required),
        key("serial", TextList("\"any\", or serial numbers; a * at the end stands for the rest"), Required),
        key("expires", Text("YYYY-MM-DD"), Required),
        key("technician", Text("any text"), Required),
        key("reason", Text("any text"), Required),
        key(
            "certificate_pem",
            Text("the appliance's certificate and those of its authorities in PEM, with action = \"certificate\""),
            Optional,
        ),
        key("kind", Text("the kind of the dead letters, with action = \"discard\""), Optional),
        key("device", Text("the id of their device, with action = \"discard\""), Optional),
        key("before", Text("a day or a moment before which they were received, with action = \"discard\""), Optional),
        key("all", Boolean, Default("false")),
        key("count", Boolean, Default("false")),
    ],
};
/// The request's file itself.
pub const REQUEST_ROOT: SectionSpec = SectionSpec { title: "the file", keys: &[key("request", Table("[request]"), Required)] };

/// Every section of a site file in the order of the documentation.
pub const SECTIONS: &[SectionSpec] = &[SITE, NETWORK, TIME, STORAGE, MAINTENANCE, UPDATE, MQTT, DEVICE, EHR, DESTINATION];
