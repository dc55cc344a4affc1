//! Doubly linked lists through the entries of a [`Slots`], every operation O(1). The idle connections stand in two of them
//! at once: their tenant's and their server's, oldest first.

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

    /// The place that the entry had. The entry stands nowhere from here on; [`List::close_gap`] makes its list know.
    #[inline]
    pub(super) fn leave(&mut self) -> Self {
        std::mem::replace(self, Self::new())
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
        let before = self.append(items[index].link_mut(), index);
        self.follow(items, before, index);
    }

    /// The half of [`push`](Self::push) that needs the entry's own link alone. The other is [`follow`](Self::follow), with
    /// what this returns: the newest before.
    #[inline(always)]
    pub(super) fn append(&mut self, link: &mut Link, index: u32) -> Option<u32> {
        debug_assert!(!link.is_linked(), "an entry stands in one list of a kind at a time");
        let before = self.newest();
        *link = Link { prev: self.tail, next: NIL };
        self.tail = index;
        self.len += 1;
        before
    }

    #[inline(always)]
    pub(super) fn follow<K, T: Linked<L>>(&mut self, items: &mut Slots<K, T>, before: Option<u32>, index: u32) {
        match before {
            Some(before) => items[before].link_mut().next = index,
            None => self.head = index,
        }
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
        let left = items[index].link_mut().leave();
        self.close_gap(items, left);
    }

    /// The other half of [`remove`](Self::remove): joins the neighbours of an entry that [left](Link::leave).
    #[inline(always)]
    pub(super) fn close_gap<K, T: Linked<L>>(&mut self, items: &mut Slots<K, T>, left: Link) {
        debug_assert!(left.is_linked(), "only what stands in the list is taken out");
        match left.prev {
            NIL => self.head = left.next,
            prev => items[prev].link_mut().next = left.next,
        }
        match left.next {
            NIL => self.tail = left.prev,
            next => items[next].link_mut().prev = left.prev,
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
