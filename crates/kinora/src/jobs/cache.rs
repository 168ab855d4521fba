//! Jobs as of their last commit, the least recently used dropped first.

use std::sync::Arc;

use uuid::Uuid;

use super::record::Job;

/// Bounds the cache by what its jobs weigh: about ten thousand that wait, which is more than callers poll at a time.
const BYTES_MAX: u64 = 8 << 20;
const JOBS_ESTIMATE: usize = 8 << 10;

#[derive(Debug)]
pub(super) struct JobCache(quick_cache::sync::Cache<Uuid, Arc<Job>, JobWeight>);

#[derive(Debug, Clone)]
struct JobWeight;

impl quick_cache::Weighter<Uuid, Arc<Job>> for JobWeight {
    fn weight(&self, _: &Uuid, job: &Arc<Job>) -> u64 {
        let plan_bytes = if job.outcome.is_some() { 4096 } else { 0 };
        (size_of::<Job>() + job.payload.len() + plan_bytes) as u64
    }
}

impl JobCache {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::with_weighter(JOBS_ESTIMATE, BYTES_MAX, JobWeight))
    }

    pub(super) fn put(&self, job: Job) {
        self.0.insert(job.id, Arc::new(job));
    }

    pub(super) fn remove(&self, id: Uuid) {
        self.0.remove(&id);
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Job>> {
        self.0.get(&id)
    }
}
