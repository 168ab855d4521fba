//! Whether a database that an older release left is brought up to date when it is opened.

use sqlx::migrate::{Migrate, Migrator};

use super::store::StoreError;

/// What is done to a database that an older release left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// It is brought up to date: who serves or works needs what is new in it.
    Renewed,
    /// It is refused, since that release may be at work on it. A database that is empty gets its tables.
    Kept,
}

impl Schema {
    /// Makes the tables that there are to be.
    pub(super) async fn prepare<C: Migrate>(
        self,
        migrator: &Migrator,
        connection: &mut C,
    ) -> Result<(), StoreError> {
        if self == Self::Kept {
            let table = migrator.table_name.as_ref();
            connection.ensure_migrations_table(table).await?;
            let applied = connection.list_applied_migrations(table).await?;
            let is_applied = |version| applied.iter().any(|migration| migration.version == version);
            if !applied.is_empty() && !migrator.iter().all(|migration| is_applied(migration.version)) {
                return Err(StoreError::Older);
            }
        }
        // The migrator locks a shared database meanwhile, so that processes which start together take turns.
        Ok(migrator.run_direct(None, connection, false).await?)
    }
}
