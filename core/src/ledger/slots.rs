//! A slab whose keys carry generations (rule 14): a key to an entry that is gone never reaches the one that took its
//! place. The lists in [`lru`](super::lru) run through its indices.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Names one entry, of the kind `K`, for as long as that entry lives.
pub struct Key<K> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> K>,
}

impl<K> Key<K> {
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

impl<K> Clone for Key<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Key<K> {}

impl<K> PartialEq for Key<K> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<K> Eq for Key<K> {}

impl<K> fmt::Debug for Key<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

pub(super) struct Slots<K, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    kind: PhantomData<fn() -> K>,
}

impl<K, T> Slots<K, T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), kind: PhantomData }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize].value = Some(value);
            return index;
        }
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        assert!(index < MAX_INDEX, "a slab holds at most {MAX_INDEX} entries");
        if self.slots.len() == self.slots.capacity() {
            // Not twice as many: of a million tenants, half would be spare room.
            self.slots.reserve_exact(self.slots.len() / 8 + 16);
        }
        self.slots.push(Slot { generation: 0, value: Some(value) });
        index
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        let slot = &mut self.slots[index as usize];
        let Some(value) = slot.value.take() else { unreachable!("entry {index} is gone") };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        value
    }

    pub(super) fn key(&self, index: u32) -> Key<K> {
        Key { index, generation: self.slots[index as usize].generation, kind: PhantomData }
    }

    /// The index behind a key, unless its entry is gone.
    pub(super) fn find(&self, key: Key<K>) -> Option<u32> {
        let slot = self.slots.get(key.index as usize)?;
        ((slot.generation == key.generation || seeded!(GenerationIgnored)) && slot.value.is_some()).then_some(key.index)
    }

    /// The entry behind a key, unless it is gone.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, key: Key<K>) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        slot.value.as_mut().filter(|_| slot.generation == key.generation || seeded!(GenerationIgnored))
    }

    /// An entry with its key.
    #[inline(always)]
    pub(super) fn keyed(&mut self, index: u32) -> (&mut T, Key<K>) {
        let slot = &mut self.slots[index as usize];
        let Some(value) = &mut slot.value else { unreachable!("entry {index} is gone") };
        (value, Key { index, generation: slot.generation, kind: PhantomData })
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many indices there are, live or free: the end of a walk with [`live`](Self::live).
    pub(super) fn span(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    pub(super) fn live(&self, index: u32) -> bool {
        self.get(index).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| slot.value.as_ref().map(|value| (index, value)))
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> + use<K, T> {
        let live: Vec<u32> = self.iter().map(|(index, _)| index).collect();
        live.into_iter()
    }
}

/// Indices above this are the lists' marks.
pub(super) const MAX_INDEX: u32 = u32::MAX - 2;

impl<K, T> Index<u32> for Slots<K, T> {
    type Output = T;

    #[inline(always)]
    fn index(&self, index: u32) -> &T {
        let Some(value) = &self.slots[index as usize].value else { unreachable!("entry {index} is gone") };
        value
    }
}

impl<K, T> IndexMut<u32> for Slots<K, T> {
    #[inline(always)]
    fn index_mut(&mut self, index: u32) -> &mut T {
        let Some(value) = &mut self.slots[index as usize].value else { unreachable!("entry {index} is gone") };
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_reaches_the_next_entry_of_its_place() {
        let mut slots = Slots::<(), _>::new();
        let index = slots.insert("first");
        let first = slots.key(index);
        assert_eq!(slots.find(first), Some(index));
        slots.remove(index);
        assert_eq!(slots.find(first), None);
        let again = slots.insert("second");
        assert_eq!(again, index, "places are used again");
        assert_eq!(slots.find(first), None);
        assert_eq!(slots.find(slots.key(again)), Some(again));
        assert_eq!(slots.len(), 1);
        assert_eq!(format!("{first:?} {:?}", slots.key(again)), "0.0 0.1", "as a failing test shows them");
    }
}
