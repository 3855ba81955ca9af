//! The partition of a message that has an order, by its key.

use std::num::NonZeroU32;

/// Returns the partition of a key, from 0: the same one in all replicas and versions.
///
/// # Source  FNV-1a with 64 bits, its halves folded, so that the low bits depend on the whole key.
#[must_use]
pub fn partition_of(key: &str, partitions: NonZeroU32) -> u32 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let hash = key.bytes().fold(OFFSET, mix);
    let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
    u32::try_from(folded % u64::from(partitions.get())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, partitions: u32) -> u32 {
        partition_of(key, NonZeroU32::new(partitions).unwrap())
    }

    #[test]
    fn msg_9_a_key_has_one_partition_in_all_versions() {
        // Written down: another result would put messages of one key into two partitions.
        for (key, eight, hundred) in [("", 1, 41), ("a", 0, 64), ("tenant-17", 7, 7)] {
            assert_eq!((of(key, 8), of(key, 100)), (eight, hundred), "{key:?}");
        }
        assert_eq!(of("anything", 1), 0);
    }

    #[test]
    fn msg_9_keys_are_spread_over_all_partitions() {
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            counts[of(&format!("order-{number}"), 8) as usize] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }
}
