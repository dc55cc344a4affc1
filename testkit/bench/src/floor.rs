//! The least that can be done: a mutex, a map, and a list of what is idle in the order in which it was used. Two lock
//! operations for an acquire and its release. No budget over what is in use, no waiting, no deadline, no cancel safety, no
//! health.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::contenders::{Connection, Contender, Open, Size};

const NIL: u32 = u32::MAX;

struct Entry {
    tenant: Arc<str>,
    idle: Option<Connection>,
    prev: u32,
    next: u32,
}

struct Table {
    names: HashMap<Arc<str>, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    open: usize,
    room: usize,
    count: Option<Arc<Open>>,
}

/// See the module.
#[derive(Clone)]
pub struct Floor(Arc<Mutex<Table>>);

/// What the floor hands out.
pub struct Held {
    table: Arc<Mutex<Table>>,
    entry: u32,
    /// None only while it is being dropped.
    connection: Option<Connection>,
}

impl Contender for Floor {
    const NAME: &'static str = "the floor";
    type Held = Held;

    fn new(size: &Size) -> Self {
        let (names, entries, free, count) = (HashMap::new(), Vec::new(), Vec::new(), size.open.clone());
        let table = Table { names, entries, free, oldest: NIL, newest: NIL, open: 0, room: size.room, count };
        Self(Arc::new(Mutex::new(table)))
    }

    async fn acquire(&self, tenant: &str) -> Held {
        let (entry, connection) = self.0.lock().take(tenant);
        Held { table: self.0.clone(), entry, connection: Some(connection) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.lock().give_back(self.entry, self.connection.take());
    }
}

impl Table {
    fn take(&mut self, tenant: &str) -> (u32, Connection) {
        if let Some(&entry) = self.names.get(tenant)
            && let Some(connection) = self.entries[entry as usize].idle.take()
        {
            self.unlink(entry);
            return (entry, connection);
        }
        let entry = self.open(tenant);
        (entry, Connection::open(self.count.as_ref()))
    }

    /// A connection for a tenant that has none, in the place of the one that was used least recently where there is no room.
    fn open(&mut self, tenant: &str) -> u32 {
        if self.open == self.room && self.oldest != NIL {
            let victim = self.oldest;
            self.unlink(victim);
            self.names.remove(&self.entries[victim as usize].tenant);
            self.entries[victim as usize].idle = None;
            self.free.push(victim);
            self.open -= 1;
        }
        self.open += 1;
        let tenant: Arc<str> = tenant.into();
        let entry = Entry { tenant: tenant.clone(), idle: None, prev: NIL, next: NIL };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.names.insert(tenant, index);
        index
    }

    fn give_back(&mut self, entry: u32, connection: Option<Connection>) {
        let newest = std::mem::replace(&mut self.newest, entry);
        let here = &mut self.entries[entry as usize];
        (here.idle, here.prev, here.next) = (connection, newest, NIL);
        match newest {
            NIL => self.oldest = entry,
            before => self.entries[before as usize].next = entry,
        }
    }

    fn unlink(&mut self, entry: u32) {
        let Entry { prev, next, .. } = self.entries[entry as usize];
        match prev {
            NIL => self.oldest = next,
            prev => self.entries[prev as usize].next = next,
        }
        match next {
            NIL => self.newest = prev,
            next => self.entries[next as usize].prev = prev,
        }
    }
}
