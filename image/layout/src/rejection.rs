//! Why a signed file from a stick is refused: `PROVISION-REJECTED(nn)`, with the numbers of the manual.

use std::fmt;

/// A reason with its number. Numbers are never given away anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// 10
    NotReadable,
    /// 11
    TooLarge,
    /// 12
    NoSignature,
    /// 13
    SignatureWrong,
    /// 14
    SignerUnknown,
    /// 15
    Expired,
    /// 16
    OtherSerial,
    /// 17
    DelegationRefused,
    /// 18
    OtherPurpose,
    /// 19
    CarriedOut,
    /// 20
    ErrorsInText,
    /// 21
    SecretInText,
    /// 22
    NoSuccessor,
    /// 30
    NoSealedStorage,
    /// 31
    NotApplied,
    /// 32
    StickNotWritable,
    /// 33
    CertificateRefused,
}

impl Rejection {
    /// All of them, by number.
    pub const ALL: [Self; 17] = [
        Self::NotReadable,
        Self::TooLarge,
        Self::NoSignature,
        Self::SignatureWrong,
        Self::SignerUnknown,
        Self::Expired,
        Self::OtherSerial,
        Self::DelegationRefused,
        Self::OtherPurpose,
        Self::CarriedOut,
        Self::ErrorsInText,
        Self::SecretInText,
        Self::NoSuccessor,
        Self::NoSealedStorage,
        Self::NotApplied,
        Self::StickNotWritable,
        Self::CertificateRefused,
    ];

    /// The number on the console and in the manual.
    pub const fn code(self) -> u16 {
        match self {
            Self::NotReadable => 10,
            Self::TooLarge => 11,
            Self::NoSignature => 12,
            Self::SignatureWrong => 13,
            Self::SignerUnknown => 14,
            Self::Expired => 15,
            Self::OtherSerial => 16,
            Self::DelegationRefused => 17,
            Self::OtherPurpose => 18,
            Self::CarriedOut => 19,
            Self::ErrorsInText => 20,
            Self::SecretInText => 21,
            Self::NoSuccessor => 22,
            Self::NoSealedStorage => 30,
            Self::NotApplied => 31,
            Self::StickNotWritable => 32,
            Self::CertificateRefused => 33,
        }
    }

    /// What is wrong, for the technician.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotReadable => "the file is missing or cannot be read",
            Self::TooLarge => "the file has more than 64 KiB",
            Self::NoSignature => "the file is not signed",
            Self::SignatureWrong => "the signature does not match: the file was changed after it was signed",
            Self::SignerUnknown => "the file was signed with a key that this appliance does not know",
            Self::Expired => "the file has expired",
            Self::OtherSerial => "the file is for another appliance",
            Self::DelegationRefused => "the right to sign was not given to this key, has expired, or does not cover this file",
            Self::OtherPurpose => "the file is signed, but as another kind of file",
            Self::CarriedOut => "the request was carried out already",
            Self::ErrorsInText => "the text has errors; the report on the stick names line and remedy",
            Self::SecretInText => "the text holds a private key, a password or a token",
            Self::NoSuccessor => "the file cannot follow the one in service",
            Self::NoSealedStorage => "there is no sealed storage, and the file does not allow to go without",
            Self::NotApplied => "the file is right, but applying it failed",
            Self::StickNotWritable => "the stick cannot be written to, so that device credentials and report have no place",
            Self::CertificateRefused => "this appliance cannot identify itself with the certificate",
        }
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NotReadable => "format the stick as FAT with the right label, copy the file again, and eject the stick before pulling it",
            Self::TooLarge => "check that the right file was copied; remove what the site does not need",
            Self::NoSignature => "sign it with imagectl provision sign",
            Self::SignatureWrong => "correct the text, then sign it again with imagectl provision sign",
            Self::SignerUnknown => "sign it with the key of this appliance's operator, or with one that it was delegated to",
            Self::Expired => "set a later date in expires and sign again; check the appliance's clock",
            Self::OtherSerial => "compare the serial number on the label with serial in the file",
            Self::DelegationRefused => "ask the holder of the root key for a new delegation",
            Self::OtherPurpose => "copy the site file to PROVISION, the request to SUPPORT, RESET, REPLAY or CERTIFICATE",
            Self::CarriedOut => "let imagectl make a new request: each is carried out once",
            Self::ErrorsInText => "correct every line that the report names, then sign again",
            Self::SecretInText => "remove it; the appliance makes its own keys. Treat what stood there as known to others",
            Self::NoSuccessor => "do what the report on the stick says and sign the file again; the one in service stays",
            Self::NoSealedStorage => "switch the TPM on in the firmware, or sign a file with unsealed_allowed and its reason",
            Self::NotApplied => "read the report on the stick; power the appliance off and on, and try once more",
            Self::StickNotWritable => "open the write protection or take another stick",
            Self::CertificateRefused => "do what the report on the stick says; the request for the authority stands in it as well",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({}) {}", self.code(), self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number on a console leads to one reason.
    #[test]
    fn numbers_are_unique_and_in_order() {
        assert!(Rejection::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
    }
}
