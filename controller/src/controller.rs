//! The use-cases of deploying, one method each.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use hanshu_core::ports::{
    self, EventQueue, FunctionRegistry, ImageBuilder, PackageStore, RevisionCatalog as _,
    StoreError,
};
use hanshu_core::{
    Actor, Clock, Digest, FunctionConfig, FunctionId, HttpTrigger, Permission, PermissionTarget,
    Qualifier, Revision, Secret, TRIGGERS_MAX, Timestamp, Trigger, TriggerId, TriggerName,
    TriggerSpec, authorize,
};

use crate::access::AccessKeys;
use crate::catalog::CachedCatalog;
use crate::config_rules::check_config;
use crate::error::ControllerError;
use crate::handler_file::check_handler_file;
use crate::random::alphanumerics;
use crate::revision_digest::revision_digest;

/// Characters of an HTTP trigger's key.
const TRIGGER_KEY_LENGTH: usize = 40;

/// Revisions forgotten in one transaction, so that deploys get their turn in between.
const FORGET_MAX: usize = 500;

/// The use-cases of deploying.
#[derive(Clone)]
pub struct Controller {
    registry: Arc<dyn FunctionRegistry>,
    packages: Arc<dyn PackageStore>,
    images: Arc<dyn ImageBuilder>,
    catalog: Arc<CachedCatalog>,
    access: Arc<AccessKeys>,
    clock: Arc<dyn Clock>,
}

/// What a deploy asks for. The trigger's own rules (cron text, path) have been checked.
#[derive(Clone, Debug)]
pub struct DeployRequest {
    /// The function that is deployed.
    pub function: FunctionId,
    /// How the function runs.
    pub config: FunctionConfig,
    /// Digest of its package, which was uploaded before.
    pub code: Digest,
    /// All its triggers: those not named here are removed.
    pub triggers: Vec<TriggerRequest>,
}

/// A trigger of a deploy.
#[derive(Clone, Debug)]
pub struct TriggerRequest {
    /// May be left out where its type occurs once: then it is the type.
    pub name: Option<TriggerName>,
    /// What it does. An HTTP trigger's `key` is ignored: the platform makes it.
    pub spec: TriggerSpec,
    /// Whether it is switched on.
    pub enabled: bool,
}

/// The result of a deploy.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// `$LATEST` after the deploy.
    pub revision: Revision,
    /// Whether code or configuration changed.
    pub changed: bool,
    /// The triggers as they now are.
    pub triggers: Vec<Trigger>,
    /// Triggers that the function had before and has no more.
    pub removed: Vec<TriggerId>,
}

impl Controller {
    /// Puts the parts together; nothing is read yet.
    pub fn new(
        registry: Arc<dyn FunctionRegistry>,
        packages: Arc<dyn PackageStore>,
        images: Arc<dyn ImageBuilder>,
        access: Arc<AccessKeys>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let catalog = Arc::new(CachedCatalog::new(registry.clone()));
        Self { registry, packages, images, catalog, access, clock }
    }

    /// The functions, versions and triggers that are deployed.
    pub fn catalog(&self) -> &Arc<CachedCatalog> {
        &self.catalog
    }

    /// The access keys, by which callers are recognised.
    pub fn access(&self) -> &Arc<AccessKeys> {
        &self.access
    }

    /// Whether the package was uploaded already.
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`].
    pub async fn has_package(
        &self,
        actor: &Actor,
        digest: &Digest,
    ) -> Result<bool, ControllerError> {
        authorize(actor, Permission::ManageFunctions, PermissionTarget::Server)?;
        Ok(self.packages.has(digest).await)
    }

    /// Stores a package under its digest.
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`]; [`ControllerError::Package`] with the entry and the rule it
    /// breaks. Nothing is kept then.
    pub async fn put_package(
        &self,
        actor: &Actor,
        digest: &Digest,
        zip: Bytes,
    ) -> Result<(), ControllerError> {
        authorize(actor, Permission::ManageFunctions, PermissionTarget::Server)?;
        Ok(self.packages.put(digest, zip).await?)
    }

    /// Makes code and configuration the function's `$LATEST`, and its triggers those of the
    /// request. `progress` is called with a line of text at each step of work that takes long (a
    /// runtime's image).
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`], [`ControllerError::Invalid`],
    /// [`ControllerError::NoPackage`], [`ControllerError::Image`], [`ControllerError::Store`];
    /// nothing has changed then.
    pub async fn deploy(
        &self,
        actor: &Actor,
        request: DeployRequest,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Deployment, ControllerError> {
        manage(actor, &request.function)?;
        check_config(&request.config)?;
        let triggers = name_triggers(&request.function, request.triggers)?;
        let family = request.config.runtime.family();
        self.check_code(&request.code, &request.config).await?;
        self.images.ensure(family, progress).await?;

        let digest = revision_digest(&request.function, &request.config, &request.code);
        let digest = digest.map_err(|error| {
            let text = format!("the configuration cannot be written: {error}");
            ControllerError::Store(StoreError::Internal(text.into()))
        })?;
        let deployment = ports::NewDeployment {
            function: request.function.clone(),
            config: request.config.clone(),
            code: request.code.clone(),
            revision: digest.clone(),
            triggers,
            now: self.clock.now(),
        };
        let done = self.registry.deploy(deployment).await?;
        self.catalog.refresh().await?;
        let revision = Revision {
            function: request.function,
            version: Qualifier::Latest,
            digest,
            code: request.code,
            config: request.config,
        };
        let ports::DeployResult { changed, triggers, removed } = done;
        Ok(Deployment { revision, changed, triggers, removed })
    }

    async fn check_code(
        &self,
        code: &Digest,
        config: &FunctionConfig,
    ) -> Result<(), ControllerError> {
        let folder = self.packages.folder(code).await.map_err(|error| match error {
            ports::PackageError::Missing(digest) => ControllerError::NoPackage(digest.to_string()),
            other => ControllerError::Package(other),
        })?;
        let rule = config.runtime.family().profile().handler;
        check_handler_file(&folder, rule, &config.handler)
    }

    /// Publishes `$LATEST` as an immutable version.
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`]; [`ControllerError::Store`]: no such function, or the
    /// registry is unavailable.
    pub async fn publish(
        &self,
        actor: &Actor,
        function: &FunctionId,
    ) -> Result<Revision, ControllerError> {
        manage(actor, function)?;
        let published = self.registry.publish(function, self.clock.now()).await?;
        self.catalog.refresh().await?;
        Ok(published)
    }

    /// Removes a function with its versions and triggers. Events that wait for it end as failed.
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`]; [`ControllerError::Store`]: no such function, or the
    /// registry is unavailable.
    pub async fn delete(
        &self,
        actor: &Actor,
        function: &FunctionId,
    ) -> Result<(), ControllerError> {
        manage(actor, function)?;
        self.registry.delete(function).await?;
        Ok(self.catalog.refresh().await?)
    }

    /// Switches a trigger on or off.
    ///
    /// # Errors
    /// [`ControllerError::Forbidden`]; [`ControllerError::Store`]: no such trigger, or the registry
    /// is unavailable.
    pub async fn enable_trigger(
        &self,
        actor: &Actor,
        trigger: &TriggerId,
        enabled: bool,
    ) -> Result<(), ControllerError> {
        let target = PermissionTarget::Function(&trigger.function);
        authorize(actor, Permission::ManageTriggers, target)?;
        self.registry.enable(trigger, enabled).await?;
        Ok(self.catalog.refresh().await?)
    }

    /// The revision that a function's qualifier stands for now.
    ///
    /// # Errors
    /// [`ControllerError::RevisionCatalog`]: no such function or version.
    pub fn resolve(
        &self,
        id: &FunctionId,
        qualifier: Qualifier,
    ) -> Result<Arc<Revision>, ControllerError> {
        Ok(self.catalog.resolve(&id.namespace, &id.name, qualifier)?)
    }

    /// Forgets revisions that were replaced before `before` and that no event of the queue names,
    /// and removes the packages that no revision names any more. Returns how many packages were
    /// removed.
    ///
    /// An event that is accepted while this runs is not among the queue's pins. Its revision is
    /// safe all the same as long as `before` is further back than a catalog can be behind: what was
    /// replaced since is not a candidate.
    ///
    /// # Errors
    /// The registry, the queue or the package store. Nothing is forgotten when the queue cannot be
    /// asked.
    pub async fn collect(
        &self,
        queue: &dyn EventQueue,
        before: Timestamp,
    ) -> Result<u64, ControllerError> {
        let mut replaced = self.registry.replaced(before).await?;
        if !replaced.is_empty() {
            let pinned: HashSet<Digest> = queue.pinned().await?.into_iter().collect();
            replaced.retain(|revision| !pinned.contains(&revision.digest));
            for revisions in replaced.chunks(FORGET_MAX) {
                self.registry.forget(revisions, before).await?;
            }
        }
        let keep = self.registry.packages().await?;
        Ok(self.packages.collect(&keep).await?)
    }

    /// Whether the registry answers.
    ///
    /// # Errors
    /// Why the registry does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.registry.ping().await
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

fn manage(actor: &Actor, function: &FunctionId) -> Result<(), ControllerError> {
    let target = PermissionTarget::Function(function);
    Ok(authorize(actor, Permission::ManageFunctions, target)?)
}

/// Gives every trigger its name, and every HTTP trigger with `auth = "key"` a key.
fn name_triggers(
    function: &FunctionId,
    requests: Vec<TriggerRequest>,
) -> Result<Vec<Trigger>, ControllerError> {
    if TRIGGERS_MAX < requests.len() {
        let rule = format!("at most {TRIGGERS_MAX} triggers for a function");
        return Err(ControllerError::invalid(
            "triggers",
            format!("{} triggers", requests.len()),
            rule,
        ));
    }
    let mut seen = HashSet::new();
    let mut triggers = Vec::with_capacity(requests.len());
    for TriggerRequest { name, mut spec, enabled } in requests {
        let kind = spec.kind();
        let name = match name {
            Some(name) => name,
            None => kind
                .default_name()
                .map_err(|e| ControllerError::invalid("name", "", e.to_string()))?,
        };
        if !seen.insert(name.clone()) {
            let rule = "names that differ (a trigger without one is called like its type, so \
                        that type may occur once only)";
            return Err(ControllerError::invalid("triggers.name", &name, rule));
        }
        if let Some(http) = spec.get::<HttpTrigger>() {
            let new_key = || Some(Secret::new(alphanumerics(TRIGGER_KEY_LENGTH)));
            spec = TriggerSpec::new(http.with_key(new_key));
        }
        triggers.push(Trigger {
            id: TriggerId { function: function.clone(), name },
            spec,
            enabled,
        });
    }
    Ok(triggers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> TriggerSpec {
        TriggerSpec::new(HttpTrigger { path: "/x".into(), ..HttpTrigger::default() })
    }

    fn function() -> FunctionId {
        FunctionId { namespace: "default".parse().unwrap(), name: "hello".parse().unwrap() }
    }

    fn request(name: Option<&str>) -> TriggerRequest {
        TriggerRequest { name: name.map(|n| n.parse().unwrap()), spec: http(), enabled: true }
    }

    #[test]
    fn a_trigger_without_a_name_is_called_like_its_type() {
        let named =
            name_triggers(&function(), vec![request(None), request(Some("other"))]).unwrap();
        let names: Vec<_> = named.iter().map(|t| t.id.name.as_str()).collect();
        assert_eq!(names, ["http", "other"]);
        assert!(name_triggers(&function(), vec![request(None), request(None)]).is_err());
    }

    #[test]
    fn each_http_trigger_with_auth_key_gets_one_of_its_own() {
        let named =
            name_triggers(&function(), vec![request(None), request(Some("other"))]).unwrap();
        let keys: HashSet<_> = named
            .iter()
            .map(|trigger| trigger.spec.get::<HttpTrigger>().unwrap().key.clone().unwrap())
            .collect();
        assert_eq!(keys.len(), 2);
    }
}
