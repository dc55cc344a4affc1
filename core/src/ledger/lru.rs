//! Doubly linked lists through the entries of a [`Slots`], every operation O(1). The idle connections stand in three of them
//! at once: their tenant's, their server's and the total's, oldest first.

use std::marker::PhantomData;

use super::slots::{MAX_INDEX, Slots};

const NIL: u32 = MAX_INDEX;
const UNLINKED: u32 = MAX_INDEX + 1;

/// An entry's place in one list.
#[derive(Clone, Copy)]
pub(super) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    pub(super) const fn new() -> Self {
        Self { prev: UNLINKED, next: UNLINKED }
    }

    pub(super) fn is_linked(&self) -> bool {
        self.prev != UNLINKED
    }
}

/// An entry that can stand in a list of kind `L`.
pub(super) trait Linked<L> {
    fn link(&self) -> &Link;
    fn link_mut(&mut self) -> &mut Link;
}

/// Gives an entry type its link for one kind of list.
macro_rules! linked {
    ($entry:ident $(<$param:ident>)?, $kind:ty => $field:tt) => {
        impl$(<$param>)? $crate::ledger::lru::Linked<$kind> for $entry$(<$param>)? {
            #[inline]
            fn link(&self) -> &$crate::ledger::lru::Link {
                &self.$field
            }
            #[inline]
            fn link_mut(&mut self) -> &mut $crate::ledger::lru::Link {
                &mut self.$field
            }
        }
    };
}
pub(super) use linked;

/// A list of kind `L`. The kind keeps a tenant's list from being walked along a server's links.
pub(super) struct List<L> {
    head: u32,
    tail: u32,
    len: u32,
    kind: PhantomData<fn() -> L>,
}

impl<L> List<L> {
    pub(super) const fn new() -> Self {
        Self { head: NIL, tail: NIL, len: 0, kind: PhantomData }
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    #[inline]
    pub(super) fn newest(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }

    /// Adds an entry as the newest.
    #[inline]
    pub(super) fn push<K, T: Linked<L>>(&mut self, items: &mut Slots<K, T>, index: u32) {
        let link = items[index].link_mut();
        debug_assert!(!link.is_linked(), "an entry stands in one list of a kind at a time");
        *link = Link { prev: self.tail, next: NIL };
        match self.newest() {
            Some(tail) => items[tail].link_mut().next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.len += 1;
    }

    /// Adds an entry in front of another one that stands in the list; as the newest where there is none.
    pub(super) fn insert<K, T: Linked<L>>(&mut self, items: &mut Slots<K, T>, index: u32, before: Option<u32>) {
        let Some(next) = before else { return self.push(items, index) };
        let prev = std::mem::replace(&mut items[next].link_mut().prev, index);
        let link = items[index].link_mut();
        debug_assert!(!link.is_linked(), "an entry stands in one list of a kind at a time");
        *link = Link { prev, next };
        match prev {
            NIL => self.head = index,
            prev => items[prev].link_mut().next = index,
        }
        self.len += 1;
    }

    /// Takes an entry out, from wherever it stands.
    #[inline]
    pub(super) fn remove<K, T: Linked<L>>(&mut self, items: &mut Slots<K, T>, index: u32) {
        let link = std::mem::replace(items[index].link_mut(), Link::new());
        debug_assert!(link.is_linked(), "only what stands in the list is taken out");
        match link.prev {
            NIL => self.head = link.next,
            prev => items[prev].link_mut().next = link.next,
        }
        match link.next {
            NIL => self.tail = link.prev,
            next => items[next].link_mut().prev = link.prev,
        }
        self.len -= 1;
    }

    /// The entries, oldest first.
    pub(super) fn iter<'a, K, T: Linked<L>>(
        &self,
        items: &'a Slots<K, T>,
    ) -> impl Iterator<Item = u32> + use<'a, K, T, L> {
        std::iter::successors(self.oldest(), move |&index| {
            let next = items[index].link().next;
            (next != NIL).then_some(next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kind;
    struct Item(Link);
    linked!(Item, Kind => 0);

    fn listed(list: &List<Kind>, items: &Slots<(), Item>) -> Vec<u32> {
        let listed: Vec<u32> = list.iter(items).collect();
        assert_eq!(listed.len(), list.len() as usize);
        assert_eq!((listed.first().copied(), listed.last().copied()), (list.oldest(), list.newest()));
        listed
    }

    #[test]
    fn entries_leave_from_any_place_and_keep_the_order_of_the_others() {
        for gone in 0..3 {
            let (mut list, mut items) = (List::<Kind>::new(), Slots::<(), _>::new());
            let all: Vec<u32> = (0..3).map(|_| items.insert(Item(Link::new()))).collect();
            for &index in &all {
                list.push(&mut items, index);
            }
            list.remove(&mut items, all[gone]);
            let mut rest = all.clone();
            rest.remove(gone);
            assert_eq!(listed(&list, &items), rest);
            list.push(&mut items, all[gone]);
            rest.push(all[gone]);
            assert_eq!(listed(&list, &items), rest);
        }
    }

    #[test]
    fn the_last_one_out_leaves_an_empty_list() {
        let (mut list, mut items) = (List::<Kind>::new(), Slots::<(), _>::new());
        let only = items.insert(Item(Link::new()));
        list.push(&mut items, only);
        list.remove(&mut items, only);
        assert!(list.is_empty() && list.oldest().is_none() && list.newest().is_none());
    }
}
