//! The poller can only read.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use support::{Act, Asked, Device, polled, start, two_blocks};
use vitalgate_modbus::BusConfig;

/// What changes a device, as the Modbus library names it.
const CHANGING: &[&str] = &["Writer", "write_", "Write", "MaskWrite", "masked_", "Custom", "prelude"];

/// D6: read-only by construction. No source line of the crate names anything that writes.
#[test]
fn no_source_file_names_a_function_that_writes() {
    let mut files = 0;
    for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join("src").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        files += 1;
        for (number, line) in text.lines().enumerate() {
            for word in CHANGING {
                assert!(!line.contains(word), "{}:{} names {word}", path.display(), number + 1);
            }
        }
    }
    assert!(files >= 7, "only {files} files were looked at");
}

#[tokio::test]
async fn only_the_four_read_functions_reach_the_wire() {
    let device = Device::start(|asked: Asked| match asked.function {
        1 | 2 => Act::Bits(vec![1]),
        _ => Act::Registers(vec![72]),
    })
    .await;
    let identity = |function: &str, expect: &str| {
        two_blocks(&format!(r#"identity = {{ function = "{function}", address = 9, expect = {expect}, source = "Test" }}"#))
    };
    let devices = vec![
        polled("a", 1, &identity("coils", "[1]"), 20),
        polled("b", 2, &identity("discrete_inputs", "[1]"), 20),
        polled("c", 3, &identity("input_registers", "[72]"), 20),
    ];
    let mut running = start(BusConfig::new(device.address.clone(), devices));
    for _ in 0..20 {
        running.sample().await;
    }
    let mut functions: Vec<_> = device.log.lock().unwrap().iter().map(|asked| asked.function).collect();
    functions.sort_unstable();
    functions.dedup();
    assert_eq!(functions, [1, 2, 3, 4]);
    running.end().await;
}
