//! Where a tenant's database is: the part of a factory that is the same for every kind of server.

use std::future::Future;
use std::sync::Arc;

use futures_core::future::BoxFuture;
use tenantry_core::{ServerId, TenantId};

use crate::error::Error;

type Rule<T> = Arc<dyn Fn(&TenantId) -> T + Send + Sync>;
type Resolver<O> = Arc<dyn Fn(TenantId) -> BoxFuture<'static, Result<O, Error>> + Send + Sync>;

/// The user's rules, none of which has to be given. `O` is sqlx's connect options.
pub(crate) struct Places<O> {
    names: Option<Rule<String>>,
    resolver: Option<Resolver<O>>,
    server_of: Option<Rule<ServerId>>,
}

impl<O> Places<O> {
    pub(crate) fn set_names(&mut self, rule: impl Fn(&TenantId) -> String + Send + Sync + 'static) {
        self.names = Some(Arc::new(rule));
    }

    pub(crate) fn set_resolver<R, Fut>(&mut self, resolver: R)
    where
        R: Fn(TenantId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, Error>> + Send + 'static,
    {
        self.resolver = Some(Arc::new(move |tenant| Box::pin(resolver(tenant))));
    }

    pub(crate) fn set_server_of(&mut self, server: impl Fn(&TenantId) -> ServerId + Send + Sync + 'static) {
        self.server_of = Some(Arc::new(server));
    }

    /// The name by the user's rule, if there is one.
    pub(crate) fn name(&self, tenant: &TenantId) -> Option<String> {
        self.names.as_ref().map(|rule| rule(tenant))
    }

    /// The options by the user's resolver, if there is one.
    pub(crate) async fn resolve(&self, tenant: &TenantId) -> Result<Option<O>, Error> {
        match &self.resolver {
            Some(resolver) => resolver(tenant.clone()).await.map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn server(&self, tenant: &TenantId) -> ServerId {
        self.server_of.as_ref().map_or_else(ServerId::default, |server_of| server_of(tenant))
    }

    pub(crate) fn has_resolver(&self) -> bool {
        self.resolver.is_some()
    }
}

impl<O> Default for Places<O> {
    fn default() -> Self {
        Self { names: None, resolver: None, server_of: None }
    }
}

impl<O> Clone for Places<O> {
    fn clone(&self) -> Self {
        Self { names: self.names.clone(), resolver: self.resolver.clone(), server_of: self.server_of.clone() }
    }
}
