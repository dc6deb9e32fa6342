//! What the gateway tells about itself: health and metrics on loopback, and the administrator's
//! socket that the command line talks to.
//!
//! Two listeners over one read model. The loopback listener answers without a login and therefore
//! carries neither readings nor patients. The administrator's socket is a Unix socket whose file
//! mode decides who may ask; it says where a reading is, never what it was.

#![forbid(unsafe_code)]

mod model;
mod serve;

pub use model::{
    Answered, DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, DeliveryState, DestinationStatus, DeviceStatus, Health,
    LOST_RANGES_PER_ANSWER_MAX, ReadModel, ReadModelError, Resolution, ResolveRequest, Status, StoreStatus, TRACE_WINDOW_MS_MAX,
    TRACES_PER_ANSWER_MAX, Trace, TraceDestination, TraceQuery, Traced, TracedDeadLetter,
};
pub use serve::{ServeError, bind_admin, serve_admin, serve_loopback};
