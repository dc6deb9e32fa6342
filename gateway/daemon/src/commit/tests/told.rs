//! What those who ask see of a commit.

use super::*;

/// Promise 5: a message that became a dead letter is known as one when it is acknowledged, not with the next answer of the EHR.
#[test]
fn a_dead_letter_is_told_with_its_acknowledgement() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(rig.submit(r#"{"values": [{"name": "pulse", "value": 71}]}"#), Receipt::Committed);
    let told = rig.commit.shared.settlement().dead_letters;
    assert!(told.contains(Sequence::FIRST), "{told:?}");
}
