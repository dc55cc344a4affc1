//! What the bytes on the wire say about a session: [`Session`] is kept up to date by `wire.rs`, from the messages that
//! [`Frames`] cuts out of them.
//!
//! The server ends every answer with its transaction status and says what each statement was. That is the truth
//! which neither diesel's transaction manager has (a `BEGIN` as text, a future dropped half-way) nor a look at the SQL.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use tokio::sync::Notify;

/// Between two transactions.
const IDLE: u8 = b'I';

/// Tags of statements that leave nothing on a session once their transaction is over. `SET`, `LISTEN`, `PREPARE`,
/// `DO`, `CREATE TABLE` (which may be a temporary one) and whatever comes with a later PostgreSQL may leave something.
const CLEAN_TAGS: [&str; 14] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "FETCH",
    "SHOW",
    "EXPLAIN",
];

/// The state of one session, as the wire shows it. Written by the task that drives the connection, read by `health`.
#[derive(Debug)]
pub(super) struct Session {
    /// Answers that the server owes: questions written and not yet ended by a `ReadyForQuery`.
    owed: AtomicU32,
    /// The transaction status of the latest one: `I`, `T` or `E`.
    status: AtomicU8,
    /// A statement may have left something on the session.
    marked: AtomicBool,
    /// Bytes wait for the network to take them.
    blocked: AtomicBool,
    /// The wire said something that is not understood here.
    confused: AtomicBool,
    /// The server or the network ended the connection.
    lost: AtomicBool,
    /// Told after every step of the driver.
    pub(super) stepped: Notify,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            // The start-up is a question as well.
            owed: AtomicU32::new(1),
            status: AtomicU8::new(IDLE),
            marked: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            confused: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            stepped: Notify::new(),
        }
    }

    /// A whole message went to the server. Query, Sync and FunctionCall are answered with a `ReadyForQuery`.
    pub(super) fn asked(&self, kind: u8) {
        if matches!(kind, b'Q' | b'S' | b'F') {
            self.owed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A whole message came from the server; `body` is its beginning.
    pub(super) fn heard(&self, kind: u8, body: &[u8]) {
        match kind {
            b'Z' => {
                self.status.store(body.first().copied().unwrap_or(0), Ordering::SeqCst);
                let one_less = |owed: u32| owed.checked_sub(1);
                if self.owed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
                    self.confuse();
                }
            }
            b'C' if !is_clean(body) => self.marked.store(true, Ordering::SeqCst),
            b'E' if is_fatal(body) => self.lose(),
            // In a COPY from the client a Sync may or may not be answered.
            b'G' | b'W' => self.confuse(),
            _ => {}
        }
    }

    pub(super) fn confuse(&self) {
        self.confused.store(true, Ordering::SeqCst);
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) fn is_confused(&self) -> bool {
        self.confused.load(Ordering::SeqCst)
    }

    /// Whether every question that reached the wire was answered.
    pub(super) fn owes_nothing(&self) -> bool {
        self.owed.load(Ordering::SeqCst) == 0 && !self.blocked.load(Ordering::SeqCst)
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.status.load(Ordering::SeqCst) != IDLE
    }

    pub(super) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    /// Whatever was left was cleaned away.
    pub(super) fn unmark(&self) {
        self.marked.store(false, Ordering::SeqCst);
    }
}

/// A tag may go on with counts, as in `INSERT 0 1`; it ends with a NUL.
fn is_clean(tag: &[u8]) -> bool {
    let begins = |clean: &str| {
        let rest = tag.strip_prefix(clean.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(0 | b' ')))
    };
    CLEAN_TAGS.iter().any(|clean| begins(clean))
}

/// Fields are a letter and a text that ends with a NUL; `V` is the severity in English.
fn is_fatal(fields: &[u8]) -> bool {
    let severity = fields.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"V"));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}

/// How much of a message's body is kept: more than any tag, and than the first two fields of an error.
const KEPT: usize = 64;

/// Cuts one direction of the wire into messages: a byte for the kind, four for the length, the body.
#[derive(Debug)]
pub(super) struct Frames {
    /// A client's first message has no kind.
    has_kind: bool,
    header: [u8; 5],
    header_len: usize,
    body_left: usize,
    body: [u8; KEPT],
    body_len: usize,
}

impl Frames {
    /// What the client sends.
    pub(super) fn of_client() -> Self {
        Self { has_kind: false, ..Self::of_server() }
    }

    /// What the server sends.
    pub(super) fn of_server() -> Self {
        Self { has_kind: true, header: [0; 5], header_len: 0, body_left: 0, body: [0; KEPT], body_len: 0 }
    }

    /// Takes the next bytes, and gives every message that ends in them to `whole`. Returns false when a length makes no
    /// sense, after which nothing does.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut whole: impl FnMut(u8, &[u8])) -> bool {
        while !bytes.is_empty() {
            let header_size = if self.has_kind { 5 } else { 4 };
            if self.header_len < header_size {
                let (now, rest) = bytes.split_at(bytes.len().min(header_size - self.header_len));
                self.header[self.header_len..self.header_len + now.len()].copy_from_slice(now);
                self.header_len += now.len();
                bytes = rest;
                if self.header_len < header_size {
                    return true;
                }
                let length = &self.header[header_size - 4..header_size];
                let length = length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
                // The length counts itself.
                let Some(body) = length.checked_sub(4) else { return false };
                self.body_left = body;
                self.body_len = 0;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.body_left));
            let kept = now.len().min(KEPT - self.body_len);
            self.body[self.body_len..self.body_len + kept].copy_from_slice(&now[..kept]);
            self.body_len += kept;
            self.body_left -= now.len();
            bytes = rest;
            if self.body_left == 0 {
                let kind = if self.has_kind { self.header[0] } else { 0 };
                whole(kind, &self.body[..self.body_len]);
                self.has_kind = true;
                self.header_len = 0;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn cut(mut frames: Frames, pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        for piece in pieces {
            assert!(frames.take(piece, |kind, body| found.push((kind, body.to_vec()))));
        }
        found
    }

    #[test]
    fn messages_are_cut_out_however_the_bytes_come() {
        let long = [7; 5000];
        let stream =
            [message(b'C', b"SELECT 1\0"), message(b'D', &long), message(b'Z', b"I"), message(b'n', b"")].concat();
        let expected =
            vec![(b'C', b"SELECT 1\0".to_vec()), (b'D', long[..KEPT].to_vec()), (b'Z', b"I".to_vec()), (b'n', vec![])];
        for size in [1, 2, 3, 7, 64, 4999, stream.len()] {
            let pieces: Vec<_> = stream.chunks(size).collect();
            assert_eq!(cut(Frames::of_server(), &pieces), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_clients_first_message_has_no_kind() {
        let startup = [&8_u32.to_be_bytes()[..], b"vers"].concat();
        let stream = [startup, message(b'Q', b"BEGIN\0")].concat();
        assert_eq!(cut(Frames::of_client(), &[&stream]), [(0, b"vers".to_vec()), (b'Q', b"BEGIN\0".to_vec())]);
    }

    #[test]
    fn a_length_without_sense_is_told() {
        assert!(!Frames::of_server().take(&[b'Z', 0, 0, 0, 3], |_, _| {}));
    }

    #[test]
    fn only_statements_that_leave_nothing_are_clean() {
        for clean in ["SELECT 5", "INSERT 0 1", "BEGIN", "COMMIT", "ROLLBACK", "UPDATE 0"] {
            assert!(is_clean(&[clean.as_bytes(), b"\0"].concat()), "{clean}");
        }
        for left in ["SET", "LISTEN", "CREATE TABLE", "PREPARE", "DO", "DECLARE CURSOR", "SELECTED", "RESET", ""] {
            assert!(!is_clean(&[left.as_bytes(), b"\0"].concat()), "{left}");
        }
    }

    #[test]
    fn a_session_is_quiet_when_all_is_answered() {
        let session = Session::new();
        assert!(!session.owes_nothing());
        session.heard(b'Z', b"I");
        assert!(session.owes_nothing());
        session.asked(b'P');
        session.asked(b'S');
        session.asked(b'Q');
        session.heard(b'Z', b"T");
        assert!(!session.owes_nothing());
        session.heard(b'Z', b"E");
        assert!(session.owes_nothing() && session.is_in_transaction() && !session.is_confused());
        session.heard(b'Z', b"I");
        assert!(session.is_confused(), "an answer to no question");
    }

    #[test]
    fn a_fatal_error_is_the_end_and_another_is_not() {
        let session = Session::new();
        session.heard(b'E', b"SERROR\0VERROR\0C23505\0\0");
        assert!(!session.is_lost());
        session.heard(b'E', b"SSCHWERWIEGEND\0VFATAL\0C57P01\0\0");
        assert!(session.is_lost());
    }
}
