// The page: starts its parts. Each part draws its own elements from the state that all share (page/state.js).

import { startBanner } from "/parts/banner.js";
import { startCamera } from "/parts/camera.js";
import { startCards } from "/parts/cards.js";
import { startDetail } from "/parts/detail.js";
import { startIntake } from "/parts/intake.js";
import { startModelCard } from "/parts/model-card.js";
import { startModels } from "/parts/models.js";
import { startQueue } from "/page/queue.js";
import { startResults } from "/parts/results.js";
import { startSnippets } from "/parts/snippets.js";

startBanner();
startIntake();
startCamera();
startCards();
startDetail();
startResults();
startModelCard();
startSnippets();
startQueue();
startModels();
