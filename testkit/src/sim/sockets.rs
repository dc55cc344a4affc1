//! The connections: opened, kept, recycled and closed as the desk says, on servers that do as they please.

use std::time::Duration;

use tenantry_core::{FailureKind, Health};

use super::desk::{Desk, Flop, RequestKey, SocketKey};
use super::engine::{Engine, Event};
use super::log::What;

/// How late a caller's task may take what it was given.
const LATE: Duration = Duration::from_millis(20);
/// How soon callers notice that a server has gone.
const NOTICED: Duration = Duration::from_micros(200);

pub(super) struct Socket<D: Desk> {
    pub(super) permit: D::Permit,
    pub(super) tenant: u32,
    pub(super) server: usize,
    /// Of the server that it was opened on.
    incarnation: u32,
    pub(super) place: Place,
    opened: Duration,
    /// Since when the desk has it; when it last did, where it has not.
    kept: Duration,
    /// As it last came back.
    health: Health,
    /// How the connect under way will end.
    outcome: Result<(), Flop>,
}

/// Where a connection is, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Opening,
    /// The desk has it.
    Kept,
    Out(RequestKey),
    Recycling,
    Closing,
}

impl<D: Desk> Engine<'_, D> {
    pub(super) fn open(&mut self, permit: D::Permit, tenant: u32) {
        let server = self.homes[tenant as usize];
        self.outside.opens(tenant, server, self.now);
        let (takes, outcome) = self.servers[server].connect(tenant, &self.broken);
        let limit = self.plan.settings.connect_timeout;
        let (takes, outcome) = if takes > limit { (limit, Err(Flop::TimedOut)) } else { (takes, outcome) };
        if outcome.is_ok() {
            self.servers[server].sessions += 1;
        }
        let incarnation = self.servers[server].incarnation;
        let (place, opened, kept, health) = (Place::Opening, self.now, self.now, Health::Clean);
        let socket = Socket { permit, tenant, server, incarnation, place, opened, kept, health, outcome };
        let socket = self.sockets.insert(socket);
        self.note_socket(What::Opens, socket, tenant.into());
        self.log_connect(tenant);
        self.agenda.put(self.now + takes, Event::Connected(socket));
        self.stir();
    }

    pub(super) fn is_alive(&self, socket: SocketKey) -> bool {
        let entry = &self.sockets[socket];
        entry.incarnation == self.servers[entry.server].incarnation
    }

    pub(super) fn connected(&mut self, socket: SocketKey) {
        let random = self.rng.u64(..);
        let alive = self.is_alive(socket);
        let entry = &mut self.sockets[socket];
        let (permit, tenant, server) = (entry.permit, entry.tenant, entry.server);
        let outcome = match entry.outcome {
            Ok(()) if !alive => Err(Flop::Error(FailureKind::Unreachable)),
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {
                (entry.place, entry.opened, entry.kept) = (Place::Kept, self.now, self.now);
                self.report.connects += 1;
                self.outside.opened(tenant, server, &self.homes, self.now);
                self.outside.is_idle(true, self.now);
                self.note_socket(What::IsOpen, socket, server as u64);
                self.desk.opened(permit, socket, random, self.now);
            }
            Err(flop) => {
                let (why, kind) = match flop {
                    Flop::Error(kind) => (kind as u64, kind),
                    Flop::TimedOut => (100, FailureKind::Unreachable),
                    Flop::Panicked => (101, FailureKind::Other),
                };
                self.outside.failed_to_open(tenant, server, kind);
                self.report.connect_failures += 1;
                self.note_socket(What::FailsToOpen, socket, why);
                self.sockets.remove(socket);
                self.outside.frees(tenant, server, 1, self.now);
                self.desk.open_failed(permit, flop, random, self.now);
            }
        }
    }

    /// Takes a connection from the desk for what is done with it; it must have it.
    fn take_kept(&mut self, permit: D::Permit, socket: SocketKey, place: Place) -> u32 {
        let entry = &mut self.sockets[socket];
        assert_eq!(entry.place, Place::Kept, "the desk gives away what it has not");
        assert_eq!(entry.permit, permit, "a connection changed its permit");
        entry.place = place;
        let tenant = entry.tenant;
        self.outside.is_idle(false, self.now);
        tenant
    }

    /// The caller has it.
    pub(super) fn hand_out(&mut self, permit: D::Permit, socket: SocketKey, request: RequestKey) {
        let tenant = self.take_kept(permit, socket, Place::Out(request));
        assert_eq!(tenant, self.requests[request].tenant, "a connection of another tenant");
        let (entry, settings) = (&self.sockets[socket], &self.plan.settings);
        assert_eq!(entry.health, Health::Clean, "a connection is handed out as it came back");
        let (age, idle) = (self.now - entry.opened, self.now - entry.kept);
        // The desk's clock goes by ticks where nothing happens, and a caller's task may come late.
        let slack = self.tick_period() + LATE;
        assert!(age <= settings.max_lifetime + slack, "a connection is handed out {age:?} after it was opened");
        // One that was set aside for a caller who went away before taking it counts as used then.
        let unseen = settings.validate_after_idle * 2 + slack;
        assert!(idle <= unseen, "a connection is handed out unseen after {idle:?}");
        self.outside.is_busy(1, self.now);
        self.count_background(request, true);
    }

    fn count_background(&mut self, request: RequestKey, takes: bool) {
        if self.plan.crowds[self.requests[request].crowd()].background {
            self.outside.is_background(takes);
        }
    }

    /// The caller gives it back, and the desk is about to have it.
    pub(super) fn take_back(&mut self, socket: SocketKey, health: Health) -> D::Permit {
        let entry = &mut self.sockets[socket];
        let Place::Out(request) = entry.place else { panic!("what comes back was out") };
        (entry.place, entry.kept, entry.health) = (Place::Kept, self.now, health);
        self.outside.is_busy(-1, self.now);
        self.count_background(request, false);
        self.outside.is_idle(true, self.now);
        self.sockets[socket].permit
    }

    pub(super) fn recycle(&mut self, permit: D::Permit, socket: SocketKey) {
        let tenant = self.take_kept(permit, socket, Place::Recycling);
        let health = self.sockets[socket].health;
        assert!(matches!(health, Health::Clean | Health::Dirty), "a connection that came back {health:?} is recycled");
        self.note_socket(What::Recycles, socket, tenant.into());
        let (alive, server) = (self.is_alive(socket), self.sockets[socket].server);
        let (takes, well) = self.servers[server].recycle(alive);
        let limit = self.plan.settings.recycle_timeout;
        let (takes, well) = if takes > limit { (limit, false) } else { (takes, well) };
        self.agenda.put(self.now + takes, Event::Recycled(socket, well));
    }

    pub(super) fn recycled(&mut self, socket: SocketKey, well: bool) {
        let well = well && self.is_alive(socket);
        let entry = &mut self.sockets[socket];
        let (permit, tenant) = (entry.permit, entry.tenant);
        if well {
            (entry.place, entry.kept, entry.health) = (Place::Kept, self.now, Health::Clean);
            self.outside.is_idle(true, self.now);
            self.note_socket(What::IsRecycled, socket, tenant.into());
            self.desk.recycled(permit, socket, self.now);
        } else {
            self.note_socket(What::FailsToRecycle, socket, tenant.into());
            self.desk.recycle_failed(permit, self.now);
            // Whoever recycled it closes it.
            self.start_closing(socket);
        }
    }

    pub(super) fn close(&mut self, permit: D::Permit, socket: SocketKey) {
        self.take_kept(permit, socket, Place::Closing);
        self.start_closing(socket);
    }

    fn start_closing(&mut self, socket: SocketKey) {
        let alive = self.is_alive(socket);
        let entry = &mut self.sockets[socket];
        entry.place = Place::Closing;
        let (tenant, server) = (entry.tenant, entry.server);
        let takes = self.servers[server].close(alive, self.plan.settings.close_timeout);
        self.note_socket(What::Closes, socket, tenant.into());
        self.agenda.put(self.now + takes, Event::Closed(socket));
    }

    pub(super) fn closed(&mut self, socket: SocketKey) {
        let alive = self.is_alive(socket);
        let Some(entry) = self.sockets.remove(socket) else { unreachable!("a connection is closed once") };
        self.note_socket(What::IsClosed, socket, entry.tenant.into());
        if alive {
            let lingers = self.servers[entry.server].lingers();
            let event = Event::Forgets(entry.server, entry.incarnation);
            self.agenda.put(self.now + lingers, event);
        }
        self.outside.frees(entry.tenant, entry.server, 1, self.now);
        self.desk.closed(entry.permit, self.now);
    }

    pub(super) fn forgets(&mut self, server: usize, incarnation: u32) {
        let server = &mut self.servers[server];
        if server.incarnation == incarnation {
            server.sessions -= 1;
        }
    }

    /// A server's sessions are gone. Those who use one notice.
    pub(super) fn lose_sessions(&mut self, server: usize) {
        self.servers[server].incarnation += 1;
        self.servers[server].sessions = 0;
        let users = self.sockets.values().filter(|socket| socket.server == server);
        let users: Vec<RequestKey> = users
            .filter_map(|socket| match socket.place {
                Place::Out(request) => Some(request),
                _ => None,
            })
            .collect();
        for request in users {
            self.agenda.put(self.now + NOTICED, Event::HoldEnds(request));
        }
    }
}
